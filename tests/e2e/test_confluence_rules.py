"""examples/confluence.cfg follows haproxy.cfg, rule by rule."""

import re

from haproxy import CONFIGURATION
from tests.support.confluence import EXAMPLE
from tests.support.haproxy_rules import (
    MODES,
    rules_and_modes,
    sections,
    without_modes,
    without_optional,
    without_own,
)

SERVER = "server app "
OF_GLOBAL = ("presetenv KAT_MODE both", "stats socket ")
"""What the example's section global has of its own, or under conditions of its own."""

ON_CONDITION = {
    "filter spoe engine kat config": {"token", "both"},
    "http-request send-spoe-group kat logout": {"token", "both"},
    "http-request send-spoe-group kat check": {"token"},
}
"""The rules of haproxy.cfg that the example follows in these modes alone."""


def test_its_rules_are_those_of_haproxy_cfg() -> None:
    """All rules of haproxy.cfg that are not optional stand in the example, and in the same order.

    It has no other ones, but in the parts that are called "only here".
    """
    shipped = sections(without_optional(CONFIGURATION.read_text()))
    example = sections(without_modes(without_own(EXAMPLE.read_text())))
    assert shipped["backend gate"].pop().startswith(SERVER)
    assert list(example) == list(shipped)
    for section in shipped.keys() - {"global"}:
        assert example[section] == shipped[section], section


def test_its_process_is_set_up_as_in_haproxy_cfg() -> None:
    """Section global is the same, but for the mode and for when there is a runtime socket."""
    shipped = _global(CONFIGURATION.read_text(), r"\.(if|elif) defined\(KAT_RUNTIME\)")
    example = _global(EXAMPLE.read_text(), r"\.if.*(\$KAT_MODE|defined\(KAT_RUNTIME)")
    assert _without(example, OF_GLOBAL) == _without(shipped, OF_GLOBAL)
    sockets = [[line for line in one if line.startswith("stats ")] for one in (example, shipped)]
    assert sockets[0] == sockets[1]
    assert all(" mode 0660 " in line for line in sockets[0])
    assert len(sockets[0]) == 2


def test_rules_depend_on_the_mode_only_where_the_agent_is_asked() -> None:
    """What cleans, refuses and answers does so in every mode."""
    asked = dict(ON_CONDITION)
    for rule, modes in rules_and_modes(_gate(without_own(EXAMPLE.read_text()))):
        known = next((known for known in asked if rule.startswith(known)), "")
        assert modes == (asked.pop(known) if known else MODES), rule
    assert asked == {}


def test_nothing_of_its_own_opens_but_an_address_in_mode_ip() -> None:
    """The yes is set in two places, one of them in mode ip alone; no rule lets a request by."""
    rules = list(rules_and_modes(EXAMPLE.read_text()))
    opens = [(rule, modes) for rule, modes in rules if " set-var(txn.gate.open)" in rule]
    assert opens == [
        ("http-request set-var(txn.gate.open) bool(true) if granted !stranger", {"ip"}),
        ("http-request set-var(txn.gate.open) bool(true) if allowed judged !failed", set(MODES)),
    ]
    said = [rule for rule, _ in rules if "set-var(txn.kat.allow)" in rule]
    assert said == ["http-request unset-var(txn.kat.allow)"]
    assert not [rule for rule, _ in rules if re.search(r"-request (allow|use-service)", rule)]


def test_in_both_modes_the_agent_is_asked_for_who_is_granted_alone() -> None:
    """There is one rule that asks in mode both, and it names the grant."""
    asks = [rule for rule, modes in rules_and_modes(EXAMPLE.read_text()) if "both" in modes]
    assert [rule for rule in asks if "send-spoe-group kat check" in rule] == [
        "http-request send-spoe-group kat check if granted !stranger !logout"
    ]


def _global(text: str, condition: str) -> list[str]:
    """Return section global without the blocks of this condition, but for their sockets."""
    kept: list[str] = []
    blocks: list[bool] = []
    for line in sections(text)["global"]:
        if line.startswith(".if"):
            blocks.append(bool(re.match(condition, line)))
        if not any(blocks) or line.startswith("stats "):
            kept.append(line)
        if line.startswith(".endif"):
            blocks.pop()
    return kept


def _without(lines: list[str], beginnings: tuple[str, ...]) -> list[str]:
    return [line for line in lines if not line.startswith(beginnings)]


def _gate(text: str) -> str:
    """Return the way in and the gate, without the agents, which mode ip does not have."""
    return text[text.index("\n.if defined(KAT_CERT)") : text.index("\nbackend nowhere")]
