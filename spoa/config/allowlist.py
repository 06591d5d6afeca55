"""Which HAProxy `kat allowlist` keeps equal to what is granted, and how."""

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
)

from haproxy.allowlist.change import Foreign
from haproxy.runtime.words import acl_name, command
from spoa.config.acl import AclName
from spoa.config.endpoint import TcpEndpoint, UnixEndpoint, parse_endpoint
from spoa.config.section import PemFile, Section, items, paired
from tokens.store.tls import TlsFiles

# As HAProxy's own parser takes the name of a section; a path or #id has other signs as well.
_is_proxy = re.compile(r"[A-Za-z0-9_:.-]{1,64}").fullmatch
_is_number = re.compile(r"#(0|[1-9][0-9]{0,8})").fullmatch


def _list_name(name: str) -> str:
    """Refuse what could not be said to HAProxy, or would be something else there."""
    try:
        command(("show", "acl", acl_name(name)))
    except ValueError:
        name = ""
    if not name or (name.startswith("#") and not _is_number(name)):
        raise ValueError("must be #id, the file's name or virt@name, as `show acl` lists it")
    return name


def _proxy_name(name: str) -> str:
    if not _is_proxy(name):
        raise ValueError("must be the name of a section of HAProxy: 1 to 64 of A-Z a-z 0-9 _ : . -")
    return name


def _some(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("must have at least one name")
    if len(set(names)) < len(names):
        raise ValueError("holds the same name twice")
    return names


ListName = Annotated[str, AfterValidator(_list_name)]
ProxyName = Annotated[str, AfterValidator(_proxy_name)]
Lists = Annotated[tuple[ListName, ...], BeforeValidator(items), AfterValidator(_some)]
Proxies = Annotated[tuple[ProxyName, ...], BeforeValidator(items), AfterValidator(_some)]


class Allowlist(Section):
    """One HAProxy: where its Runtime API is, and which of its ACLs hold which grants."""

    # Before `runtime`, which they permit.
    insecure: StrictBool = Field(default=False, description="permits TCP without TLS")
    ca_file: PemFile = None
    cert_file: PemFile = None
    key_file: PemFile = Field(default=None, validate_default=True)
    runtime: str
    acl: dict[AclName, Lists] = Field(default_factory=dict)
    heartbeat: str = "kat_alive"
    foreign: Foreign = Foreign.KEEP
    shut: dict[AclName, Proxies] = Field(default_factory=dict)

    _pair = field_validator("key_file")(paired)

    @field_validator("runtime")
    @classmethod
    def _runtime(cls, text: str, info: ValidationInfo) -> str:
        endpoint = parse_endpoint(text)
        if endpoint.is_per_worker or (isinstance(endpoint, UnixEndpoint) and endpoint.is_tunnel):
            raise ValueError("must be unix:/path, host:port or [ipv6]:port")
        if isinstance(endpoint, TcpEndpoint) and not endpoint.port:
            raise ValueError("port 0 is none that HAProxy could listen at")
        is_tcp = isinstance(endpoint, TcpEndpoint)
        if is_tcp and not info.data.get("ca_file") and not info.data.get("insecure", True):
            raise ValueError(
                "whoever reaches that port, or its wire, is HAProxy's admin: use unix:/path, TLS "
                "(ca_file, cert_file, key_file), or set insecure = true"
            )
        if not is_tcp and info.data.get("ca_file"):
            raise ValueError("is a unix socket: with ca_file, which is for TLS, say host:port")
        return text

    @field_validator("acl")
    @classmethod
    def _acl(cls, acl: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        names = [name for some in acl.values() for name in some]
        if len(set(names)) < len(names):
            raise ValueError(
                "names an ACL of HAProxy twice: what one puts there, the other removes"
            )
        return acl

    @field_validator("heartbeat")
    @classmethod
    def _heartbeat(cls, table: str) -> str:
        return _proxy_name(table) if table else table

    @property
    def tls(self) -> TlsFiles | None:
        return TlsFiles(self.ca_file, self.cert_file, self.key_file) if self.ca_file else None
