"""What HAProxy 2.6 to 3.2 answers, read. Pure; raises Unreadable for what it never said there."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_FIELD: Final = re.compile(r"^(\w+): (.*)$", re.MULTILINE)
_VERSION: Final = re.compile(r"(\d{1,19})\.(\d{1,19})")
_ACL: Final = re.compile(r"(\d{1,19}) \((.*?)\) (.*)")
_ENTRY: Final = re.compile(r"0x[0-9a-f]+ (.+)")
_PREPARED: Final = re.compile(r"New version created: (\d{1,19})")
_STREAM: Final = re.compile(r"(0x[0-9a-f]+): (.*)")
_AGE: Final = re.compile(r"(\d{1,19})([dhms])")
_TABLE: Final = re.compile(r"# table: (\S+), type: (\w+),.*")
_KEPT: Final = re.compile(r"0x[0-9a-f]+: key=(.*) use=\d{1,19} exp=(\d{1,19})(?: .*)?")
_COMPARED: Final = re.compile(r"^type=(\w+),", re.MULTILINE)

_SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class Unreadable(Exception):
    """This answer is none of those that we know."""


@dataclass(frozen=True, slots=True)
class Process:
    """A HAProxy. Another pid or another start is another one, with ACLs and tables of its own."""

    pid: int
    version: tuple[int, int]
    started_s: int
    """Unix time, by its own clock."""
    is_stopping: bool
    """Whether another process takes the new connections, and this one only ends its old ones."""


@dataclass(frozen=True, slots=True)
class AclName:
    """An ACL: `#<id>` names it, and so does its file, if it has one."""

    id: int
    file: str
    description: str


@dataclass(frozen=True, slots=True)
class Stream:
    """A connection, or a request of one, on its way through HAProxy.

    `source` is the other end of the connection. Behind a proxy that is the proxy, also where
    `accept-proxy` or `set-src` made the client's address known to the rules.
    """

    id: str
    frontend: str
    source: IPv4Address | IPv6Address | None
    age_s: int


@dataclass(frozen=True, slots=True)
class Table:
    """What `show table` says: the type, and how long each key will stay."""

    type: str
    expiries_ms: dict[str, int]


def read_process(said: str) -> Process:
    fields = dict(_FIELD.findall(said))
    version = _VERSION.match(fields.get("Version", ""))
    try:
        assert version
        return Process(
            int(fields["Pid"]),
            (int(version[1]), int(version[2])),
            int(fields["Start_time_sec"]),
            int(fields["Stopping"]) != 0,
        )
    except (AssertionError, KeyError, ValueError):
        raise Unreadable from None


def read_acls(said: str) -> list[AclName]:
    """Read `show acl`."""
    lines = [line for line in said.split("\n") if not line.startswith("#")]
    return [AclName(int(acl[1]), acl[2], acl[3]) for acl in _each(_ACL, lines)]


def read_entries(said: str) -> list[str]:
    """Read `show acl <name>`."""
    return [entry[1] for entry in _each(_ENTRY, said.split("\n")) if entry]


def read_level(said: str) -> str:
    """Read `show cli level`."""
    if said not in ("admin", "operator", "user"):
        raise Unreadable
    return said


def read_version(said: str) -> int:
    """Read `prepare acl <name>`."""
    version = _PREPARED.fullmatch(said)
    if not version:
        raise Unreadable
    return int(version[1])


def read_types(said: str) -> list[str]:
    """Read `get acl <name> <anything>`: what each expression on this ACL compares."""
    types = _COMPARED.findall(said)
    if not types:
        raise Unreadable
    return types


def read_table(said: str) -> Table:
    head, _, rest = said.partition("\n")
    table = _TABLE.fullmatch(head)
    if not table:
        raise Unreadable
    kept = _each(_KEPT, rest.split("\n"))
    return Table(table[2], {_unescaped(entry[1]): int(entry[2]) for entry in kept})


def read_frontends(said: str) -> list[str]:
    """Read `show stat -1 1 -1`: one line each, of which the first two fields are of interest."""
    rows = [line.split(",", 2) for line in said.split("\n") if line]
    if not rows or rows[0][0] != "# pxname":
        raise Unreadable
    return [row[0] for row in rows[1:] if row[1:2] == ["FRONTEND"]]


def read_streams(said: str) -> list[Stream]:
    return [_stream(line[1], line[2]) for line in _each(_STREAM, said.split("\n"))]


def _stream(name: str, rest: str) -> Stream:
    # A stream of HAProxy's own has neither src nor fe.
    words = dict(word.partition("=")[::2] for word in rest.split(" "))
    age = _AGE.findall(words.get("age", ""))
    if not age:
        raise Unreadable
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in age)
    return Stream(name, words.get("fe", ""), _source(words.get("src", "")), seconds)


def _source(text: str) -> IPv4Address | IPv6Address | None:
    """Read address:port; unix:3 and the like are none."""
    try:
        address = ip_address(text.rpartition(":")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _each(line_of: re.Pattern[str], lines: list[str]) -> list[re.Match[str]]:
    found = [line_of.fullmatch(line) for line in lines if line]
    if not all(found):
        raise Unreadable
    return [match for match in found if match]


def _unescaped(key: str) -> str:
    return re.sub(r"\\(.)", r"\1", key)
