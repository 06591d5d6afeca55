import pytest

from spoa.bench.load.holdings import IDLE_MS
from spoa.bench.scenario import ACLS, WITHOUT_AUDIT, Proof, Scenario
from spoa.config.file import load
from tokens.policy.rule import Mode

_MODES = {
    Scenario.IP_TOKEN: Mode.IP_TOKEN,
    Scenario.GRANT: Mode.IP,
    Scenario.SESSION: Mode.SESSION,
    Scenario.SESSION_COLD: Mode.SESSION,
    Scenario.SESSION_IDLE: Mode.SESSION,
    Scenario.SESSION_OPEN: Mode.SESSION,
    Scenario.MIXED: Mode.SESSION,
    Scenario.OPEN_SESSION: Mode.SESSION,
}


@pytest.mark.parametrize("scenario", Scenario)
def test_every_scenario_asks_for_an_acl_of_its_mode(scenario: Scenario) -> None:
    """The agents are configured as the scenario says, or its answers would mean another thing."""
    rule = load(environ=ACLS).rules[scenario.case.acl.decode()]
    assert rule.mode is _MODES.get(scenario, Mode.STRICT)
    if rule.mode is Mode.SESSION:
        assert (rule.session_idle_ms == IDLE_MS) is scenario.case.is_idle


def test_only_one_agent_has_no_audit() -> None:
    """By default events are told to the stream; with one variable more they are not."""
    assert load(environ=ACLS).audit.stream
    assert not load(environ={**ACLS, **WITHOUT_AUDIT}).audit.stream


def test_what_is_consumed_never_comes_twice() -> None:
    """Only what leaves Redis as it was may go round."""
    for scenario in set(Scenario) - {Scenario.MIXED}:
        case = scenario.case
        assert not (case.consumes and case.goes_round)
        assert case.consumes or case.goes_round
        assert case.consumes <= (case.proof is Proof.TOKEN)


def test_a_mixed_load_has_shares_of_plain_ones() -> None:
    """Its parts are scenarios of their own, of the same agent, whose ACKs can be foreseen."""
    for scenario in Scenario:
        assert (len(scenario.shares) > 1) is (scenario is Scenario.MIXED)
    for kind, share in Scenario.MIXED.shares.items():
        case = kind.case
        assert kind.shares == {kind: 1}
        assert share > 0
        assert case.asked is Scenario.MIXED.case.asked
        assert not case.expected.opens_session


def test_a_token_for_another_acl_is_for_one_that_nobody_asks_for() -> None:
    """What is refused as `wrong_acl` would open something else, and never what is asked for."""
    case = Scenario.WRONG_ACL.case
    assert case.issued_for not in {one.case.acl for one in Scenario}
    assert case.is_issued
    assert case.issued_for
