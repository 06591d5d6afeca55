"""What an operator may set: one immutable Config, checked as a whole.

Reading it from a file and the environment, and wording the mistakes, is file.py's work.
Each refusal here is a sentence that says what is allowed. Secrets never appear in one.
"""

import os
from pathlib import Path
from typing import Self
from urllib.parse import quote

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from spoa.config.acl import Acl, AclName
from spoa.config.allowlist import Allowlist
from spoa.config.endpoint import MAX_UNIX_PATH_BYTES, Endpoint, UnixEndpoint, parse_endpoint
from spoa.config.places import default_run_dir, default_state_dir
from spoa.config.section import Section, absolute
from spoa.config.sections import Audit, Limits, Listen, Log, Store
from tokens.policy.rule import AclRule


class Config(Section):
    """Everything an operator may set. Each key has a default."""

    state_dir: Path = Field(default_factory=default_state_dir)
    run_dir: Path = Field(default_factory=default_run_dir)
    listen: Listen = Field(default_factory=Listen)
    store: Store = Field(default_factory=Store)
    limits: Limits = Field(default_factory=Limits)
    acl: dict[AclName, Acl] = Field(default_factory=lambda: {"demo": Acl()})
    allowlist: dict[AclName, Allowlist] = Field(default_factory=dict)
    audit: Audit = Field(default_factory=Audit)
    log: Log = Field(default_factory=Log)

    @model_validator(mode="before")
    @classmethod
    def _run_dir(cls, given: object) -> object:
        """Keep the sockets with the state, when the operator chose where that is."""
        if isinstance(given, dict) and "state_dir" in given and "run_dir" not in given:
            own = Path(str(given["state_dir"])) / "run"
            return {**given, "run_dir": own} if own.is_absolute() else given
        return given

    _directories = field_validator("state_dir", "run_dir")(absolute)

    @field_validator("acl")
    @classmethod
    def _acl(cls, acl: dict[AclName, Acl]) -> dict[str, Acl]:
        return acl or {"demo": Acl()}

    @field_validator("allowlist")
    @classmethod
    def _allowlist(cls, allowlist: dict[AclName, Allowlist]) -> dict[str, Allowlist]:
        first_of: dict[str, str] = {}
        for name, kept in allowlist.items():
            if (first := first_of.setdefault(kept.runtime, name)) != name:
                raise ValueError(f"{first} and {name} have the same runtime: make them one section")
        return allowlist

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
    def rules(self) -> dict[str, AclRule]:
        """What opens each ACL, as the gate reads it."""
        return {name: acl.rule for name, acl in self.acl.items()}

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
