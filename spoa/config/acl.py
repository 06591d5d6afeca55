"""What opens a protected application, and for how long."""

from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from spoa.config.duration import parse_duration, write_duration
from spoa.config.section import Section
from tokens.policy.rule import AclRule, Bind, Mode
from tokens.record import MAX_GRANT_TTL_S, MAX_SESSION_TTL_S
from tokens.spelling import RULES


def _acl_name(name: str) -> str:
    is_right, rule = RULES["acl"]
    if not is_right(name):
        raise ValueError(f"must be {rule}")
    return name


AclName = Annotated[str, AfterValidator(_acl_name)]


def _duration(value: object) -> int:
    if not isinstance(value, str | int):
        raise ValueError("must be a duration: 90s, 30m, 8h or 1d")  # noqa: TRY004 - for pydantic
    return parse_duration(value)


def _idle(value: object) -> int | None:
    if value in ("off", None):
        return None
    # Elsewhere 0 means "at once" as often as "never": whoever writes it is asked which.
    if not (idle_s := _duration(value)):
        raise ValueError('must be at least 1s, or "off": then it may lie idle until its end')
    return idle_s


def _within(ttl_s: int, longest_s: int) -> int:
    if not 1 <= ttl_s <= longest_s:
        raise ValueError(f"must be 1s to {write_duration(longest_s)}")
    return ttl_s


Duration = Annotated[int, BeforeValidator(_duration)]
Idle = Annotated[int | None, BeforeValidator(_idle)]

# A working day, and half an hour away from the desk.
_DAY_S = 8 * 3600
_REST_S = 30 * 60


class Session(Section):
    """How long a session lives. A token may ask for less, never for more."""

    ttl: Duration = _DAY_S
    idle: Idle = _REST_S
    bind: Bind = Bind.OFF

    @field_validator("ttl")
    @classmethod
    def _ttl(cls, ttl_s: int) -> int:
        return _within(ttl_s, MAX_SESSION_TTL_S)

    @field_validator("idle")
    @classmethod
    def _idle(cls, idle_s: int | None, info: ValidationInfo) -> int | None:
        ttl_s = info.data.get("ttl")
        if idle_s and ttl_s and idle_s > ttl_s:
            raise ValueError(f"must not be longer than ttl, which is {write_duration(ttl_s)}")
        return idle_s


class Grant(Section):
    """How long a consumed token opens its client's address."""

    ttl: Duration = 3600

    @field_validator("ttl")
    @classmethod
    def _ttl(cls, ttl_s: int) -> int:
        return _within(ttl_s, MAX_GRANT_TTL_S)


class Nonce(Enum):
    """Whether the token of a link must be bound to the browser that follows it."""

    OPTIONAL = "optional"
    REQUIRED = "required"


class Acl(Section):
    """One protected application."""

    mode: Mode = Mode.STRICT
    nonce: Nonce = Nonce.OPTIONAL
    session: Session = Field(default_factory=Session)
    grant: Grant = Field(default_factory=Grant)

    @field_validator("nonce")
    @classmethod
    def _has_tokens(cls, nonce: Nonce, info: ValidationInfo) -> Nonce:
        """Refuse it where no token is looked at."""
        if nonce is Nonce.REQUIRED and info.data.get("mode") is Mode.IP:
            raise ValueError('with mode = "ip" it would do nothing: no token is looked at')
        return nonce

    @field_validator("session", "grant")
    @classmethod
    def _has_effect(cls, section: Section, info: ValidationInfo) -> Section:
        """Refuse what would do nothing: whoever wrote it believes in it."""
        mode = info.data.get("mode")
        if mode is not None and mode.value != info.field_name:
            raise ValueError(
                f'needs mode = "{info.field_name}"; with "{mode.value}" it would do nothing'
            )
        return section

    @property
    def rule(self) -> AclRule:
        """What the gate reads."""
        ttl_s, idle_s = self.session.ttl, self.session.idle
        return AclRule(
            mode=self.mode,
            session_ttl_ms=ttl_s * 1000,
            # None saves Redis a write for each request; the end comes no later.
            session_idle_ms=idle_s * 1000 if idle_s and idle_s < ttl_s else None,
            session_bind=self.session.bind,
            grant_ttl_ms=self.grant.ttl * 1000,
            is_nonce_required=self.nonce is Nonce.REQUIRED,
        )
