"""What Redis itself says after a round: exactly what was answered has happened."""

import time
from collections.abc import Sequence

from spoa.bench.load.corpus import CLIENTS, Issued, reap
from spoa.bench.load.generator import Tally
from spoa.bench.load.holdings import audited, end_sessions, standing_grants, unlist_sessions
from spoa.bench.scenario import Asked, Proof, Scenario

_SAMPLE = 50
"""So many of the last tokens are looked for in the audit, whose stream forgets the first ones."""
_PATIENCE_S = 2.0


def verify(scenario: Scenario, redis_socket: str, tokens: Sequence[Issued], tally: Tally) -> None:
    """Count as wrong what Redis knows otherwise. Takes away what the round has left there."""
    case = scenario.case
    if case.asked is Asked.ECHO:
        return
    if case.consumes:
        _verify_consumed(scenario, redis_socket, tokens, tally)
    if case.proof is Proof.SESSION:
        standing, prolonged = end_sessions(redis_socket, tokens)
        _hold(tally, standing, "sessions stand", len(tokens), "were asked for")
        _hold(tally, prolonged, "were prolonged", len(tokens) if case.is_idle else 0, "should be")
    if case.expected.opens_session:
        _verify_opened(redis_socket, tokens, tally)
    if case.is_granted:
        _hold(tally, standing_grants(redis_socket, case.acl), "grants stand", CLIENTS, "were given")
    if case.proof is Proof.TOKEN and not case.consumes:
        _verify_refused(scenario, redis_socket, tokens, tally)


def _verify_refused(
    scenario: Scenario, redis_socket: str, tokens: Sequence[Issued], tally: Tally
) -> None:
    """Look whether each token is as it was: consumed, whole, or none at all."""
    found = reap(redis_socket, tokens)
    consumed = len(tokens) if scenario is Scenario.REPLAY else 0
    whole = len(tokens) - consumed if scenario.case.is_issued else 0
    _hold(tally, found.consumed, "consumed in Redis", consumed, "should be")
    _hold(tally, found.whole, "whole in Redis", whole, "should be")


def _verify_consumed(
    scenario: Scenario, redis_socket: str, tokens: Sequence[Issued], tally: Tally
) -> None:
    early, sample = tokens[:-_SAMPLE], tokens[-_SAMPLE:]
    consumed = reap(redis_socket, sample).consumed
    to_tell = consumed if scenario.case.asked is not Asked.UNAUDITED else 0
    consumed += reap(redis_socket, early).consumed
    _hold(tally, consumed, "consumed in Redis", tally.right, "answered ok")
    _hold(tally, _told(redis_socket, sample, to_tell), "in the audit", to_tell, "should be")


def _told(redis_socket: str, tokens: Sequence[Issued], wanted: int) -> int:
    """Look into the audit. It is written after the ACK, and nobody waits for it but we."""
    patience_ends = time.monotonic() + _PATIENCE_S
    while (told := audited(redis_socket, tokens)) < wanted and time.monotonic() < patience_ends:
        time.sleep(_PATIENCE_S / 100)
    return told


def _verify_opened(redis_socket: str, tokens: Sequence[Issued], tally: Tally) -> None:
    opened = [tokens[index]._replace(session=session) for index, session in tally.fresh]
    standing, _ = end_sessions(redis_socket, opened)
    _hold(tally, standing, "sessions stand", tally.right, "answered ok")
    listed = unlist_sessions(redis_socket, opened)
    _hold(tally, listed, "sessions listed", tally.right, "answered ok")


def _hold(tally: Tally, found: int, what: str, wanted: int, why: str) -> None:
    if found != wanted:
        tally.wrong[f"{found} {what}, {wanted} {why}"] += abs(found - wanted)
