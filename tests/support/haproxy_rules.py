"""HAProxy's files as lists of rules: what must be the same in two of them, whatever they call it.

Comments, layout, the values of defaults and the names of gates are left out; conditions are not.
"""

import re
from collections.abc import Iterator

MODES = frozenset({"ip", "token", "both"})

_OPTIONAL = re.compile(r"defined\(KAT_(CONFIRM|NONCE_KEY|ACME|PORTAL_APP)\)")
_FOR_THE_OPTIONAL = re.compile(
    r"acl (challenge|asks_to_post) "
    r"|.* if (asks_to_post|\{ var\(txn\.gate\.new_browser\) -m bool \})$"
)
_MODE = re.compile(r'\.if (!?)streq\("\$KAT_MODE",(\w+)\)$')


def sections(text: str) -> dict[str, list[str]]:
    """Return the rules of each section, in order."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        rule = plain(line)
        if re.match(r"(global|defaults|frontend|backend)\b", line):
            name = rule
            found[name] = []
        elif rule and name:
            found[name].append(rule)
    return found


def plain(line: str) -> str:
    """Return what a line says; nothing, if it is a comment."""
    rule = "" if line.lstrip().startswith("#") else " ".join(line.split())
    rule = re.sub(r"\$\{(\w+(?:\[\*\])?)-[^}]*\}", r"${\1}", rule)
    return re.sub(r"\bgate_\w+", "gate", rule)


def without_optional(text: str) -> str:
    """Leave out what the page that asks, nonces, ACME and a portal behind the gate need."""
    kept: list[str] = []
    blocks: list[bool] = []
    for line in text.splitlines():
        if line.startswith(".if"):
            blocks.append(bool(_OPTIONAL.search(line)))
        if not any(blocks) and not _FOR_THE_OPTIONAL.match(plain(line)):
            kept.append(line.removesuffix(" unless challenge"))
        if line.startswith(".endif"):
            blocks.pop()
    return "\n".join(kept)


def without_own(text: str) -> str:
    """Leave out the parts whose headings say "only here"."""
    kept: list[str] = []
    is_own = False
    for line in text.splitlines():
        if line.lstrip().startswith("# --"):
            is_own = ": only here -" in line
        if not is_own:
            kept.append(line)
    return "\n".join(kept)


def without_modes(text: str) -> str:
    """Leave out conditions on the mode, and nothing of what stands behind them."""
    kept: list[str] = []
    blocks: list[bool] = []
    for line in text.splitlines():
        if line.startswith(".if"):
            blocks.append("$KAT_MODE" in line)
        is_condition = line.startswith((".if", ".elif", ".else", ".endif"))
        if not (is_condition and blocks[-1]):
            kept.append(line)
        if line.startswith(".endif"):
            blocks.pop()
    return "\n".join(kept)


def rules_and_modes(text: str) -> Iterator[tuple[str, set[str]]]:
    """Give each rule with the modes in which HAProxy may read it."""
    blocks: list[frozenset[str]] = []
    for line in text.splitlines():
        if line.startswith(".if"):
            blocks.append(_modes_of(line))
        elif line.startswith(".endif"):
            blocks.pop()
        elif (rule := plain(line)) and not rule.startswith("."):
            yield rule, set(MODES.intersection(*blocks))


def _modes_of(condition: str) -> frozenset[str]:
    """Read a condition: one mode, all but one, or none of our business."""
    found = _MODE.match(condition)
    if found is None:
        return MODES
    return MODES - {found[2]} if found[1] else frozenset({found[2]})
