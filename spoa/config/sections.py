"""Where the agent listens, where its tokens are, what it bears, and how it speaks."""

import grp
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationInfo,
    field_validator,
)

from spoa.config.endpoint import TcpEndpoint, parse_endpoint, parse_tcp
from spoa.config.section import PemFile, Section, absolute, items, paired
from spoa.config.storeurl import EMBEDDED, check_store_url
from spoa.spop.constants import DEFAULT_MAX_FRAME_BYTES, MIN_MAX_FRAME_BYTES
from tokens.store.tls import TlsFiles
from tokens.store.url import parse_store_url

# One worker per core is the most that helps; 512 is more cores than HAProxy uses threads for.
MAX_WORKERS = 512
# HAProxy keeps a frame in one buffer. 1 MiB is 64 default buffers.
MAX_FRAME_BYTES = 1024 * 1024

_TLS_KEYS = ("cert_file", "key_file", "client_ca_file")

_is_prefix = re.compile(r"[A-Za-z0-9:_.-]{1,32}").fullmatch


def _spop_address(text: str, info: ValidationInfo) -> str:
    endpoint = parse_endpoint(text)
    if not isinstance(endpoint, TcpEndpoint):
        return text
    if endpoint.port == 0:
        raise ValueError("port 0 is any free port: HAProxy could not know which")
    # A file that is a mistake itself is not in there: of one mistake nobody is told twice.
    has_tls = any(info.data.get(key, True) for key in _TLS_KEYS)
    if not has_tls and not info.data.get("insecure", True):
        raise ValueError(
            "whoever reaches a TCP port can consume tokens and claim any client address: "
            "use unix:/path, set listen.cert_file, key_file and client_ca_file for TLS, or "
            "listen.insecure = true"
        )
    return text


SpopAddress = Annotated[str, AfterValidator(_spop_address)]
# Not looked into before an agent starts (spoa/tls.py): commands that do not listen may be run by
# people who have no business with its key.
ListenerFile = Annotated[Path, AfterValidator(absolute)] | None


@dataclass(frozen=True, slots=True)
class ListenerFiles:
    """PEM files of a TLS listener: who we are, and whose certificates let a HAProxy in."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path


class Listen(Section):
    """Where HAProxy and Prometheus find the agent."""

    # Before `spop`: what permits TCP.
    insecure: StrictBool = Field(default=False, description="permits TCP without TLS")
    cert_file: ListenerFile = None
    key_file: ListenerFile = None
    # Looked at also when it is missing: the three are of use together.
    client_ca_file: ListenerFile = Field(default=None, validate_default=True)
    # None: the default socket. Looked at even so, because TLS needs a TCP address.
    spop: Annotated[tuple[SpopAddress, ...] | None, BeforeValidator(items)] = Field(
        default=None, validate_default=True
    )
    group: str | None = None
    metrics: str = "127.0.0.1:9464"
    workers: StrictInt = Field(default=0, ge=0, le=MAX_WORKERS)

    @field_validator("client_ca_file")
    @classmethod
    def _three(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        files = [info.data.get(key, file) for key in _TLS_KEYS[:2]]
        if any((other is None) is not (file is None) for other in files):
            raise ValueError("belongs to cert_file and key_file: set all three of them, or none")
        if file and info.data.get("insecure"):
            raise ValueError(
                "turns TLS on at every TCP address, and insecure = true permits TCP without: "
                "remove one of them"
            )
        return file

    @field_validator("spop")
    @classmethod
    def _spop(cls, spop: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if spop is not None and not spop:
            raise ValueError("must have at least one address")
        if spop and len(set(spop)) < len(spop):
            raise ValueError("holds the same address twice")
        has_tcp = any(isinstance(parse_endpoint(text), TcpEndpoint) for text in spop or ())
        if info.data.get("client_ca_file") and not has_tcp:
            raise ValueError(
                "needs an address host:port: on a unix socket cert_file would do nothing"
            )
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

    @property
    def tls(self) -> ListenerFiles | None:
        """What TCP addresses speak TLS with; None without TLS."""
        if self.cert_file and self.key_file and self.client_ca_file:
            return ListenerFiles(self.cert_file, self.key_file, self.client_ca_file)
        return None

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, metrics: str) -> str:
        if metrics:
            parse_tcp(metrics)
        return metrics


class Store(Section):
    """Which Redis holds the tokens."""

    url: str = Field(default=EMBEDDED, repr=False)
    prefix: str = "kat:"
    fence: StrictBool = True
    clock_skew_ms: StrictInt = Field(default=2000, ge=0, le=60_000)
    ca_file: PemFile = None
    cert_file: PemFile = None
    # Looked at also when it is missing: a certificate is no use alone.
    key_file: PemFile = Field(default=None, validate_default=True)

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        check_store_url(url)
        return url

    @field_validator("prefix")
    @classmethod
    def _prefix(cls, prefix: str) -> str:
        if not _is_prefix(prefix):
            raise ValueError("must be 1 to 32 of A-Z a-z 0-9 : _ . -")
        return prefix

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _for_tls(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("url")
        if file and url and (url == EMBEDDED or not parse_store_url(url).is_tls):
            raise ValueError("needs a url of rediss://; without TLS it would do nothing")
        return file

    _pair = field_validator("key_file")(paired)

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.ca_file, self.cert_file, self.key_file)

    @property
    def is_embedded(self) -> bool:
        return self.url == EMBEDDED


class Limits(Section):
    """What one worker bears, and for how long it waits."""

    deadline_ms: StrictInt = Field(default=80, ge=1, le=10_000)
    in_flight: StrictInt = Field(default=4096, ge=1, le=1_000_000)
    max_frame_bytes: StrictInt = Field(
        default=DEFAULT_MAX_FRAME_BYTES, ge=MIN_MAX_FRAME_BYTES, le=MAX_FRAME_BYTES
    )
    handshake_timeout_s: StrictFloat = Field(default=5.0, gt=0, le=60)
    drain_s: StrictFloat = Field(default=10.0, ge=0, le=300)


class Audit(Section):
    """Where is told what happened: in a stream in Redis, in the log, or in both."""

    stream: StrictBool = True
    log: StrictBool = False
    max_entries: StrictInt = Field(default=100_000, ge=1, le=100_000_000)


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


class Log(Section):
    """How the program speaks to its operator."""

    format: LogFormat = LogFormat.LOGFMT
    level: LogLevel = LogLevel.INFO
