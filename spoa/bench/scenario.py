"""What is asked of the agent, and what each kind of request brings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Final

from spoa.bench.load.corpus import ACL


class Scenario(StrEnum):
    """A kind of request, in the order of the table."""

    CEILING = "ceiling"
    CONSUME = "consume"
    UNAUDITED = "unaudited"
    BOUND = "bound"
    IP_TOKEN = "ip+token"
    GRANT = "grant"
    SESSION = "session"
    SESSION_COLD = "session-cold"
    SESSION_IDLE = "session-idle"
    SESSION_OPEN = "session-open"
    REPLAY = "replay"
    WRONG_ACL = "wrong-acl"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"
    MIXED = "mixed"
    OPEN = "open"
    OPEN_SESSION = "open-session"

    @property
    def case(self) -> "Case":
        return _CASES[self]

    @property
    def shares(self) -> Mapping["Scenario", int]:
        """Of what kinds its requests are, and how many of each there are for one of another."""
        return _MIXED if self is Scenario.MIXED else {self: 1}


class Proof(Enum):
    """What a request brings."""

    TOKEN = "token"
    SESSION = "session"
    ADDRESS = "address"


class Asked(Enum):
    """Who answers. All agents share one Redis."""

    ECHO = "echo"
    AGENT = "agent"
    UNAUDITED = "unaudited"
    """The same, with the audit switched off."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What every ACK of a scenario says besides the user and the kid."""

    verdict: bytes
    reason: bytes
    acl: bytes = ACL
    opens_session: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """The facts of a scenario."""

    expected: Expectation
    proof: Proof = Proof.TOKEN
    via: bytes | None = b"header"
    consumes: bool = False
    goes_round: int = 0
    """How many different requests are asked again and again. 0: each comes once."""
    is_bound: bool = False
    """The tokens: to the client's network, the host, the method and the path."""
    issued_for: bytes | None = None
    """The ACL of the tokens, where that is another one than the requests name."""
    is_issued: bool = True
    """Redis knows the tokens."""
    is_granted: bool = False
    """Every client's address."""
    is_idle: bool = False
    """The sessions end when nobody comes for so long."""
    asked: Asked = Asked.AGENT
    is_open_loop: bool = False

    @property
    def acl(self) -> bytes:
        return self.expected.acl


ECHOED: Final = Expectation(b"denied", b"echo")
CONSUMED: Final = Expectation(b"allow", b"ok")
REPLAYED: Final = Expectation(b"denied", b"replayed")
WRONG_ACL: Final = Expectation(b"denied", b"wrong_acl")
UNKNOWN: Final = Expectation(b"denied", b"unknown")
MALFORMED: Final = Expectation(b"denied", b"malformed")

_SESSION: Final = b"session"
_IDLE: Final = b"idle"
_IP: Final = b"ip"
_IP_TOKEN: Final = b"both"

ACLS: Final[Mapping[str, str]] = {
    "KAT_ACL__DEMO__MODE": "strict",
    "KAT_ACL__SESSION__MODE": "session",
    "KAT_ACL__SESSION__SESSION__IDLE": "off",
    "KAT_ACL__IDLE__MODE": "session",
    "KAT_ACL__IP__MODE": "ip",
    "KAT_ACL__BOTH__MODE": "ip+token",
}
"""How the agents are configured. What is not said is the default: 8 h, and 30 min of idle time."""

WITHOUT_AUDIT: Final[Mapping[str, str]] = {"KAT_AUDIT__STREAM": "false"}

# More than can be in flight at once.
_MANY: Final = 20_000
# Fewer than a worker remembers the meaning of: of 2,000 visitors each asks for a page and all that
# belongs to it. With _MANY in turn, none is remembered when it comes again.
_VISITORS: Final = 2_000

_OTHER_ACL: Final = b"elsewhere"

_HIT: Final = Case(
    Expectation(b"allow", b"session", _SESSION),
    proof=Proof.SESSION,
    via=None,
    goes_round=_VISITORS,
)

_CASES: Final = {
    Scenario.CEILING: Case(ECHOED, asked=Asked.ECHO, goes_round=_MANY, is_issued=False),
    Scenario.CONSUME: Case(CONSUMED, consumes=True),
    Scenario.UNAUDITED: Case(CONSUMED, consumes=True, asked=Asked.UNAUDITED),
    Scenario.BOUND: Case(CONSUMED, consumes=True, is_bound=True),
    Scenario.IP_TOKEN: Case(
        Expectation(b"allow", b"ok", _IP_TOKEN), consumes=True, is_granted=True
    ),
    Scenario.GRANT: Case(
        Expectation(b"allow", b"grant", _IP),
        proof=Proof.ADDRESS,
        via=None,
        goes_round=_MANY,
        is_granted=True,
    ),
    Scenario.SESSION: _HIT,
    Scenario.SESSION_COLD: replace(_HIT, goes_round=_MANY),
    Scenario.SESSION_IDLE: Case(
        Expectation(b"allow", b"session", _IDLE),
        proof=Proof.SESSION,
        via=None,
        goes_round=_VISITORS,
        is_idle=True,
    ),
    Scenario.SESSION_OPEN: Case(
        Expectation(b"allow", b"ok", _SESSION, opens_session=True), via=b"query", consumes=True
    ),
    Scenario.REPLAY: Case(REPLAYED, goes_round=_MANY),
    Scenario.WRONG_ACL: Case(WRONG_ACL, goes_round=_MANY, issued_for=_OTHER_ACL),
    Scenario.UNKNOWN: Case(UNKNOWN, goes_round=_MANY, is_issued=False),
    Scenario.MALFORMED: Case(MALFORMED, goes_round=_MANY, is_issued=False),
    Scenario.MIXED: _HIT,
    Scenario.OPEN: Case(CONSUMED, consumes=True, is_open_loop=True),
    Scenario.OPEN_SESSION: replace(_HIT, is_open_loop=True),
}

# A site where most have a session already, programs come with tokens, some addresses are granted,
# and somebody tries what is old or made up.
_MIXED: Final = {
    Scenario.SESSION: 75,
    Scenario.CONSUME: 15,
    Scenario.GRANT: 5,
    Scenario.MALFORMED: 3,
    Scenario.REPLAY: 2,
}
