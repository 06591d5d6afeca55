"""Reads HAProxy's files as far as they must agree with ours.

No parser of HAProxy's language: variables are put in, and a few directives are found by their
words. Of conditions, defined(NAME) is understood; what stands inside any other .if counts.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = re.compile(r"\$\{(\w+)(?:\[\*\])?(?:-([^}]*))?\}|\$(\w+)")
_TIME = re.compile(r"(\d+)(us|ms|s|m|h|d)?", re.ASCII)
_DEFINED = re.compile(r"(!?)\s*defined\((\w+)\)", re.ASCII)
_SET_VAR = re.compile(r"set-var(?:-fmt)?\(([\w.]+)[,)]")
_MS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class HaproxyFileError(Exception):
    """One of the files cannot be read. The message is a sentence with its name."""


@dataclass(slots=True)
class Proxy:
    """A frontend, backend or listen section, as far as it asks an agent."""

    name: str
    """As the file has it: `frontend web`."""
    acls: list[str] = field(default_factory=list)
    """Names it asks for: `set-var(txn.gate.acl) str(NAME)`."""
    groups: list[str] = field(default_factory=list)
    """The spoe-groups that it sends."""
    is_tcp: bool = False
    """Whether it sends one of them by `tcp-request content`."""
    inspect_delay_ms: float | None = None
    is_tls: bool = False
    """Whether its servers speak TLS unless they say otherwise."""


@dataclass(slots=True)
class HaproxyFacts:
    """What HAProxy will do to the agent."""

    engines: list[Path] = field(default_factory=list)
    """Files named by `filter spoe ... config FILE`."""
    processing_ms: list[float] = field(default_factory=list)
    """`timeout processing` of each spoe-agent; infinite where it has none."""
    backends: list[str] = field(default_factory=list)
    """Where the spoe-agents send their messages."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """The messages of each spoe-group."""
    messages: dict[str, dict[str, str]] = field(default_factory=dict)
    """The arguments of each spoe-message, and what each of them is filled with."""
    variables: dict[str, list[str]] = field(default_factory=dict)
    """What rules set each variable to."""
    servers: dict[str, list[str]] = field(default_factory=dict)
    """Addresses by backend."""
    by_tls: set[str] = field(default_factory=set)
    """Those of them that HAProxy speaks TLS to."""
    proxies: list[Proxy] = field(default_factory=list)
    chroot: str = ""

    @property
    def acls(self) -> list[str]:
        """All names that gates ask for."""
        return [name for proxy in self.proxies for name in proxy.acls]

    def agents(self) -> list[str]:
        """Addresses of all agents, as they are outside of HAProxy's chroot."""
        names = [address for backend in self.backends for address in self.servers.get(backend, [])]
        return [_outside(name, self.chroot) for name in names]

    def asked(self, proxy: Proxy) -> list[str]:
        """Name the messages that this section sends."""
        return [message for group in proxy.groups for message in self.groups.get(group, [])]


def read_haproxy_files(files: Iterable[Path], environ: Mapping[str, str]) -> HaproxyFacts:
    """Read these files and the engines they name, each once. Raises HaproxyFileError."""
    facts = HaproxyFacts()
    seen: set[Path] = set()
    for named in (files, facts.engines):
        for file in named:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                _read(_text(file), environ, facts)
    return facts


def _text(file: Path) -> str:
    try:
        raw = file.read_bytes()
        text = raw.decode()
    except OSError as error:
        raise HaproxyFileError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        fault = f"is not UTF-8 (at line {line}): no file of HAProxy's"
        raise HaproxyFileError(f"{file}: {fault}") from None
    if "\0" in text:
        raise HaproxyFileError(f"{file}: holds a NUL: no file of HAProxy's")
    return text


def _read(text: str, environ: Mapping[str, str], facts: HaproxyFacts) -> None:
    section = ""  # what the spoe sections are called; proxies carry their own names
    proxy = defaults = Proxy("")
    for words in _live(text, environ):
        match words:
            case ["defaults", *_]:
                proxy = defaults = Proxy("")
            case [("frontend" | "backend" | "listen") as kind, name, *_]:
                proxy = Proxy(
                    f"{kind} {name}",
                    inspect_delay_ms=defaults.inspect_delay_ms,
                    is_tls=defaults.is_tls,
                )
                facts.proxies.append(proxy)
                facts.servers.setdefault(name, [])
            case ["spoe-agent", *_]:
                section = ""
                facts.processing_ms.append(float("inf"))
            case [("spoe-group" | "spoe-message"), name, *_]:
                section = name
            case ["timeout", "processing", time]:
                facts.processing_ms[-1:] = [_milliseconds(time)]
            case ["use-backend", name]:
                facts.backends.append(name)
            case ["messages", *names] if section:
                facts.groups.setdefault(section, []).extend(names)
            case ["args", *args] if section:
                pairs = [arg.partition("=") for arg in args if "=" in arg]
                told = {name: filled for name, _, filled in pairs}
                facts.messages.setdefault(section, {}).update(told)
            case ["filter", "spoe", *options] if "config" in options[:-1]:
                facts.engines.append(Path(options[options.index("config") + 1]))
            case ["default-server", *options]:
                proxy.is_tls = _speaks_tls(options, by_default=proxy.is_tls)
            case ["server", _, address, *options] if proxy.name:
                facts.servers[proxy.name.split()[1]].append(address)
                if _speaks_tls(options, by_default=proxy.is_tls):
                    facts.by_tls.add(_outside(address, chroot=""))
            case ["chroot", directory]:
                facts.chroot = directory
            case ["tcp-request", "inspect-delay", time]:
                proxy.inspect_delay_ms = _milliseconds(time)
            case ["tcp-request", "content", *rule]:
                proxy.is_tcp |= rule[:1] == ["send-spoe-group"]
                _read_rule(rule, proxy, facts)
            case ["http-request", *rule]:
                _read_rule(rule, proxy, facts)


def _speaks_tls(options: list[str], *, by_default: bool) -> bool:
    return "no-ssl" not in options and (by_default or "ssl" in options)


def _read_rule(rule: list[str], proxy: Proxy, facts: HaproxyFacts) -> None:
    if len(rule) > 1 and (found := _SET_VAR.match(rule[0])):
        facts.variables.setdefault(found[1], []).append(rule[1])
    match rule:
        case ["send-spoe-group", _, group, *_]:
            proxy.groups.append(group)
        case [action, value, *_] if action.endswith(".acl)"):
            proxy.acls += re.findall(r"^str\((.+)\)$", value)


@dataclass(slots=True)
class _Block:
    """One .if, up to its .endif."""

    is_live: bool
    is_settled: bool
    """Whether a branch was surely taken: those after it are not."""


def _live(text: str, environ: Mapping[str, str]) -> Iterator[list[str]]:
    """Give the words of each line that HAProxy may read."""
    blocks: list[_Block] = []
    for line in text.splitlines():
        match _words(line, environ):
            case [".if", *condition]:
                verdict = _verdict(" ".join(condition), environ)
                blocks.append(_Block(verdict is not False, verdict is True))
            case [".elif" | ".else" as word, *condition] if blocks:
                block = blocks[-1]
                verdict = word == ".else" or _verdict(" ".join(condition), environ)
                block.is_live = not block.is_settled and verdict is not False
                block.is_settled |= verdict is True
            case [".endif"] if blocks:
                blocks.pop()
            case words if all(block.is_live for block in blocks):
                yield words


def _verdict(condition: str, environ: Mapping[str, str]) -> bool | None:
    """Judge a condition: true, false, or None for what only HAProxy knows."""
    terms = [
        _every([_defined(factor, environ) for factor in term.split("&&")])
        for term in condition.split("||")
    ]
    # One is true unless every one is false.
    none_is = _every([None if term is None else not term for term in terms])
    return None if none_is is None else not none_is


def _every(verdicts: list[bool | None]) -> bool | None:
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _defined(factor: str, environ: Mapping[str, str]) -> bool | None:
    found = _DEFINED.fullmatch(factor.strip())
    return (found[2] in environ) is not bool(found[1]) if found else None


def _words(line: str, environ: Mapping[str, str]) -> list[str]:
    """Put the variables in and split at blanks; quotes and comments are much like a shell's."""
    filled = _VARIABLE.sub(lambda m: environ.get(m[1] or m[3], m[2] or ""), line)
    try:
        return shlex.split(filled, comments=True)
    except ValueError:
        return []  # a regex with a lone quote: no directive that we look for


def _milliseconds(time: str) -> float:
    found = _TIME.fullmatch(time)
    return int(found[1]) * _MS[found[2] or "ms"] if found else float("inf")


def _outside(address: str, chroot: str) -> str:
    """Write an address as our configuration does."""
    path = re.sub(r"^(unix@|(?=/))", "", address)
    if path.startswith("/"):
        return f"unix:{chroot.rstrip('/')}{path}"
    return re.sub(r"^ipv[46]@|^tcp[46]?@", "", address)
