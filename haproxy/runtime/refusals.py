"""What HAProxy refuses, in a sentence with what to do about it. Pure."""

from collections.abc import Sequence
from typing import Final

from haproxy.runtime.fault import NoAdmin, Refused, UnknownAcl, UnknownTable, WrongType, cleaned
from haproxy.runtime.place import RuntimePlace
from tokens.spelling import shown

# The words of 2.6, 3.0 and 3.2, by their beginnings.
_GONE: Final = ("Key not found.", "No such session")
_NO_ACL: Final = ("Unknown ACL identifier", "Unknown map identifier")
_NO_TABLE: Final = "No such table"
_NO_PERMISSION: Final = "Permission denied"
_NOT_SHOWN: Final = "contents not dumped due to insufficient privileges"
_NOT_STORED: Final = "Data type not stored in this table"
_OLD_VERSION: Final = "Version number"

_TABLE: Final = "stick-table type string len 64 size 1k expire 30s store gpc0"
_MAX_SHOWN_CHARS: Final = 100


def is_gone(said: str) -> bool:
    """Tell whether HAProxy would have removed what is not there."""
    return said.startswith(_GONE)


def is_of_pattern(fault: Refused) -> bool:
    """Tell whether it is the entry that HAProxy does not take, and not the command."""
    return type(fault) is Refused and not fault.said.startswith((_OLD_VERSION, "Unknown command"))


def refusal(place: RuntimePlace, command: Sequence[str], said: str) -> Refused:
    """Word what HAProxy said to a command that it did not do."""
    words = cleaned(said.encode())
    if _NO_PERMISSION in said or _NOT_SHOWN in said:
        return NoAdmin(f"{_asked(place, command)} is not permitted: {_LEVEL}", words)
    if said.startswith(_NO_ACL):
        return UnknownAcl(f"{_no_acl(place, command)}", words)
    if said.startswith(_NO_TABLE):
        why = f"it needs a backend of this name with `{_TABLE}`"
        return UnknownTable(f"no table {shown(command[2])} in HAProxy at {place}: {why}", words)
    if _NOT_STORED in said:  # behind "Filter entry #1: "
        why = f"does not store it: make it `{_TABLE}`"
        return WrongType(f"{_asked(place, command)}: the table {why}", words)
    if said.startswith(_OLD_VERSION):
        why = "somebody else replaced its entries meanwhile"
        return Refused(f"{_asked(place, command)} came too late: {why}", words)
    return Refused(f"{_asked(place, command)} was answered {shown(words)}", words)


def no_admin(place: RuntimePlace, level: str) -> NoAdmin:
    return NoAdmin(f"the Runtime API at {place} has level {level}: {_LEVEL}", level)


def wrong_acl(place: RuntimePlace, acl: str, types: Sequence[str]) -> WrongType:
    found = " and ".join(sorted(set(types)))
    return WrongType(
        f"ACL {shown(acl)} of HAProxy at {place} compares {found}, not addresses: "
        f"write it as `acl <name> src -u 500` or `src -f <file>`",
        found,
    )


def wrong_table(place: RuntimePlace, table: str, found: str) -> WrongType:
    return WrongType(
        f"table {shown(table)} of HAProxy at {place} is of type {found}: make it `{_TABLE}`", found
    )


def not_kept(place: RuntimePlace, table: str, key: str, *, is_cut: bool) -> WrongType:
    """Word why a heartbeat would stand for more than was meant."""
    why = "does not hold it, or cuts it" if is_cut else "never lets it expire"
    return WrongType(
        f"table {shown(table)} of HAProxy at {place} {why}: {shown(key)}; make it `{_TABLE}`", why
    )


_LEVEL: Final = "set `level admin` at its `stats socket`"


def _no_acl(place: RuntimePlace, command: Sequence[str]) -> str:
    name = next((word for word in command[2:] if not word.startswith("@")), "")
    return (
        f"no ACL {shown(name)} in HAProxy at {place}: write the number of its -u as #500, or its "
        f"file as the configuration has it; virt@ needs HAProxy 3.0"
    )


def _asked(place: RuntimePlace, command: Sequence[str]) -> str:
    text = " ".join(command)
    cut = text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."
    return f"`{cut}` to HAProxy at {place}"
