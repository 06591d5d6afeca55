"""What an operator may set: one immutable Config, checked as a whole.

Reading it from a file and the environment, and wording the mistakes, is configfile.py's work.
Each refusal here is a sentence that says what is allowed. Secrets never appear in one.
"""

import grp
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from spoa.config.endpoint import (
    MAX_UNIX_PATH_BYTES,
    Endpoint,
    TcpEndpoint,
    UnixEndpoint,
    parse_endpoint,
    parse_tcp,
)
from spoa.config.places import default_run_dir, default_state_dir
from spoa.config.storeurl import EMBEDDED, check_store_url
from spoa.spop.constants import DEFAULT_MAX_FRAME_BYTES, MIN_MAX_FRAME_BYTES

LATER_MODES = ("session", "grant", "ip", "ip+token")

# One worker per core is the most that helps; 512 is more cores than HAProxy uses threads for.
MAX_WORKERS = 512
# HAProxy keeps a frame in one buffer. 1 MiB is 64 default buffers.
MAX_FRAME_BYTES = 1024 * 1024


def _items(value: object) -> object:
    """Take a text with commas for a list: the environment knows no lists."""
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def _spop_address(text: str, info: ValidationInfo) -> str:
    endpoint = parse_endpoint(text)
    if not isinstance(endpoint, TcpEndpoint):
        return text
    if endpoint.port == 0:
        raise ValueError("port 0 is any free port: HAProxy could not know which")
    if not info.data.get("insecure", True):
        raise ValueError(
            "whoever reaches a TCP port can consume tokens and claim any client address: "
            "use unix:/path, or set listen.insecure = true"
        )
    return text


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or not str(path).isprintable():
        raise ValueError("must be an absolute path")
    return path


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


SpopAddress = Annotated[str, AfterValidator(_spop_address)]
AclName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Listen(_Section):
    """Where HAProxy and Prometheus find the agent."""

    # Before `spop`, which it permits.
    insecure: StrictBool = Field(default=False, description="permits TCP without TLS")
    spop: Annotated[tuple[SpopAddress, ...], BeforeValidator(_items)] = ()
    group: str | None = None
    metrics: str = "127.0.0.1:9464"
    workers: StrictInt = Field(default=0, ge=0, le=MAX_WORKERS)

    @field_validator("spop")
    @classmethod
    def _spop(cls, spop: tuple[str, ...]) -> tuple[str, ...]:
        if not spop:
            raise ValueError("must have at least one address")
        if len(set(spop)) < len(spop):
            raise ValueError("holds the same address twice")
        return spop

    @field_validator("group")
    @classmethod
    def _group(cls, group: str | None) -> str | None:
        if group is not None:
            try:
                grp.getgrnam(group)
            except KeyError:
                raise ValueError("must be a group that exists on this machine") from None
        return group

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, metrics: str) -> str:
        if metrics:
            parse_tcp(metrics)
        return metrics


class Store(_Section):
    """Which Redis holds the tokens."""

    url: str = Field(default=EMBEDDED, repr=False)
    prefix: str = Field(default="kat:", pattern=r"^[A-Za-z0-9:_.-]{1,32}$")
    fence: StrictBool = True
    clock_skew_ms: StrictInt = Field(default=2000, ge=0, le=60_000)

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        check_store_url(url)
        return url

    @property
    def is_embedded(self) -> bool:
        return self.url == EMBEDDED


class Limits(_Section):
    """What one worker bears, and for how long it waits."""

    deadline_ms: StrictInt = Field(default=80, ge=1, le=10_000)
    in_flight: StrictInt = Field(default=4096, ge=1, le=1_000_000)
    max_frame_bytes: StrictInt = Field(
        default=DEFAULT_MAX_FRAME_BYTES, ge=MIN_MAX_FRAME_BYTES, le=MAX_FRAME_BYTES
    )
    handshake_timeout_s: StrictFloat = Field(default=5.0, gt=0, le=60)
    drain_s: StrictFloat = Field(default=10.0, ge=0, le=300)


class Mode(StrEnum):
    """What opens an ACL."""

    STRICT = "strict"


class Acl(_Section):
    """One protected application."""

    mode: Mode = Mode.STRICT

    @field_validator("mode", mode="before")
    @classmethod
    def _mode(cls, mode: object) -> object:
        if mode in LATER_MODES:
            raise ValueError('comes with a later release; this one has "strict"')
        return mode


class LogFormat(StrEnum):
    """How a log line is written."""

    LOGFMT = "logfmt"
    JSON = "json"


class LogLevel(StrEnum):
    """What is worth a line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(_Section):
    """How the program speaks to its operator."""

    format: LogFormat = LogFormat.LOGFMT
    level: LogLevel = LogLevel.INFO


class Config(_Section):
    """Everything an operator may set. Each key has a default."""

    state_dir: Path = Field(default_factory=default_state_dir)
    run_dir: Path = Field(default_factory=default_run_dir)
    listen: Listen = Field(default_factory=Listen)
    store: Store = Field(default_factory=Store)
    limits: Limits = Field(default_factory=Limits)
    acl: dict[AclName, Acl] = Field(default_factory=lambda: {"demo": Acl()})
    log: Log = Field(default_factory=Log)

    @model_validator(mode="before")
    @classmethod
    def _run_dir(cls, given: object) -> object:
        """Keep the sockets with the state, when the operator chose where that is."""
        if isinstance(given, dict) and "state_dir" in given and "run_dir" not in given:
            own = Path(str(given["state_dir"])) / "run"
            return {**given, "run_dir": own} if own.is_absolute() else given
        return given

    _directories = field_validator("state_dir", "run_dir")(_absolute)

    @field_validator("acl")
    @classmethod
    def _acl(cls, acl: dict[AclName, Acl]) -> dict[str, Acl]:
        return acl or {"demo": Acl()}

    @model_validator(mode="after")
    def _paths_fit(self) -> Self:
        sockets = [("state_dir", str(self.redis_socket))] if self.store.is_embedded else []
        if not self.listen.spop:
            is_inside = self.run_dir == self.state_dir / "run"
            key = "state_dir" if is_inside else "run_dir"
            sockets.append((key, str(self.run_dir / "spoa.sock")))
        for key, path in sockets:
            if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
                raise PydanticCustomError(
                    "path_too_long",
                    "is too long: the socket {path} has {size} bytes, {limit} are allowed",
                    {
                        "key": key,
                        "path": path,
                        "size": len(os.fsencode(path)),
                        "limit": MAX_UNIX_PATH_BYTES,
                    },
                )
        return self

    @property
    def workers(self) -> int:
        """How many workers run: `listen.workers`, or one for each core we may use."""
        return self.listen.workers or len(os.sched_getaffinity(0))

    @property
    def shared_endpoints(self) -> tuple[Endpoint, ...]:
        """What the supervisor binds, for all workers."""
        return tuple(endpoint for endpoint in self.endpoints if not endpoint.is_per_worker)

    def own_endpoints(self, index: int) -> tuple[UnixEndpoint, ...]:
        """Name what this worker binds itself, so that its death refuses connections at once."""
        return tuple(
            endpoint.for_worker(index)
            for endpoint in self.endpoints
            if isinstance(endpoint, UnixEndpoint) and endpoint.is_per_worker
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where HAProxy connects: `listen.spop`, or one shared socket in the run directory."""
        if not self.listen.spop:
            return (UnixEndpoint(str(self.run_dir / "spoa.sock")),)
        return tuple(parse_endpoint(text) for text in self.listen.spop)

    @property
    def redis_dir(self) -> Path:
        return self.state_dir / "redis"

    @property
    def redis_socket(self) -> Path:
        return self.redis_dir / "redis.sock"

    @property
    def store_url(self) -> str:
        """The URL to connect to, also when Redis is embedded. May hold a password."""
        return (
            f"unix://{quote(str(self.redis_socket))}" if self.store.is_embedded else self.store.url
        )
