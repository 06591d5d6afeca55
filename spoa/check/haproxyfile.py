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
_MS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(slots=True)
class HaproxyFacts:
    """What HAProxy will do to the agent."""

    engines: list[Path] = field(default_factory=list)
    """Files named by `filter spoe ... config FILE`."""
    processing_ms: list[float] = field(default_factory=list)
    """`timeout processing` of each spoe-agent; infinite where it has none."""
    backends: list[str] = field(default_factory=list)
    """Where the spoe-agents send their messages."""
    servers: dict[str, list[str]] = field(default_factory=dict)
    """Addresses by backend."""
    acls: list[str] = field(default_factory=list)
    """Names that gates ask for: `set-var(txn.gate.acl) str(NAME)`."""
    chroot: str = ""

    def agents(self) -> list[str]:
        """Addresses of all agents, as they are outside of HAProxy's chroot."""
        names = [address for backend in self.backends for address in self.servers.get(backend, [])]
        return [_outside(name, self.chroot) for name in names]


def read_haproxy_files(files: Iterable[Path], environ: Mapping[str, str]) -> HaproxyFacts:
    """Read these files and the engines they name. Raises OSError, UnicodeDecodeError."""
    facts = HaproxyFacts()
    for file in files:
        _read(file.read_text(), environ, facts)
    for engine in facts.engines:
        _read(engine.read_text(), environ, facts)
    return facts


def _read(text: str, environ: Mapping[str, str], facts: HaproxyFacts) -> None:
    section = ""
    for words in _live(text, environ):
        match words:
            case [("backend" | "listen") as kind, name, *_]:
                section = f"{kind} {name}"
                facts.servers.setdefault(name, [])
            case ["spoe-agent", *_]:
                facts.processing_ms.append(float("inf"))
            case ["timeout", "processing", time]:
                facts.processing_ms[-1:] = [_milliseconds(time)]
            case ["use-backend", name]:
                facts.backends.append(name)
            case ["filter", "spoe", *options] if "config" in options[:-1]:
                facts.engines.append(Path(options[options.index("config") + 1]))
            case ["server", _, address, *_] if section:
                facts.servers[section.split()[1]].append(address)
            case ["chroot", directory]:
                facts.chroot = directory
            case ["http-request", action, value, *_] if action.endswith(".acl)"):
                facts.acls += re.findall(r"^str\((.+)\)$", value)


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
