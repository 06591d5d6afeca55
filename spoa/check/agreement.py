"""What HAProxy's files say against the configuration: one sentence for each disagreement."""

import re
from collections.abc import Iterator, Mapping
from itertools import product

from spoa.check.haproxyfile import HaproxyFacts, Proxy
from spoa.config.acl import Acl, Nonce
from spoa.config.model import Config
from tokens.policy.rule import Bind, Mode

_VARIABLE = re.compile(r"var\(([\w.]+)[,)]")
_NEEDS: Mapping[str, Mapping[Mode, tuple[str, ...]]] = {
    "check-http": {
        Mode.STRICT: ("token",),
        Mode.SESSION: ("token", "via", "session", "host"),
        Mode.GRANT: ("token", "src"),
        Mode.IP: ("src",),
        Mode.IP_TOKEN: ("token", "src"),
    },
    # A connection carries no token: an address that is open already is all it can show.
    "check-tcp": {Mode.GRANT: ("src",), Mode.IP: ("src",)},
    # Where there are no sessions it ends none, which is no mistake: one gate serves every mode.
    "logout": {mode: ("session",) if mode is Mode.SESSION else () for mode in Mode},
}
"""The arguments without which a message could not open, or end, anything in a mode."""


_ONCE = (Mode.STRICT, Mode.IP_TOKEN)
"""The modes in which nothing stays open behind a token."""


def disagreements(config: Config, facts: HaproxyFacts, ours: frozenset[str]) -> Iterator[str]:
    """Say what would go wrong between HAProxy and an agent that listens at `ours`."""
    yield from _late(config, facts)
    yield from _elsewhere(facts, ours)
    yield from _unencrypted(config, facts, ours)
    for proxy in facts.proxies:
        for name in proxy.acls:
            if name not in config.acl:
                yield f"a gate asks for the ACL {name}, which is not configured: unknown_acl, 503"
        yield from _unanswerable(config, facts, proxy)
        yield from _nameless(config, facts, proxy)
        yield from _hasty(facts, proxy)


def doubts(config: Config, facts: HaproxyFacts) -> Iterator[str]:
    """Say what may be as somebody wants it, but rarely is; and what could not be looked at."""
    if not any(proxy.groups for proxy in facts.proxies):
        yield (
            "no `send-spoe-group` found: which ACLs gates ask for, and where agents are, was not "
            "looked at; give haproxy.cfg with --haproxy, too"
        )
    elif facts.backends and not facts.agents():
        yield (
            f"the backend {', '.join(facts.backends)} has no server in these files: where agents "
            "are was not looked at"
        )
    for proxy in facts.proxies:
        yield from _sessionless(config, facts, proxy)
        yield from _asking_in_vain(config, facts, proxy)


def _late(config: Config, facts: HaproxyFacts) -> Iterator[str]:
    deadline_ms = config.limits.deadline_ms
    if not facts.processing_ms:
        yield (
            "no spoe-agent found: `timeout processing`, messages and where agents are was not "
            "looked at; give the SPOE file (kat.spoe.conf) with --haproxy, too"
        )
    for processing_ms in facts.processing_ms:
        if processing_ms == float("inf"):
            yield "spoe-agent has no `timeout processing`: a silent agent holds requests forever"
        elif processing_ms <= deadline_ms:
            yield (
                f"`timeout processing` is {processing_ms:g} ms, limits.deadline_ms {deadline_ms}: "
                "HAProxy would give up on requests whose token is being consumed"
            )


def _elsewhere(facts: HaproxyFacts, ours: frozenset[str]) -> Iterator[str]:
    theirs = facts.agents()
    # At the other end of a tunnel an agent has whatever address the tunnel gives it.
    is_told = not any(place.startswith("tunnel:") for place in ours)
    if theirs and is_told and not any(_is_among(one, ours) for one in theirs):
        yield f"sends to {', '.join(theirs)}; we listen at {', '.join(sorted(ours))}"


def _is_among(address: str, ours: frozenset[str]) -> bool:
    """Tell whether we listen there, or everywhere."""
    _, _, port = address.rpartition(":")
    return not {address, f"0.0.0.0:{port}", f"[::]:{port}"}.isdisjoint(ours)


def _unencrypted(config: Config, facts: HaproxyFacts, ours: frozenset[str]) -> Iterator[str]:
    """Find agents of ours that HAProxy would speak to in another way than they do."""
    has_tls = config.listen.tls is not None
    for address in facts.agents():
        if ":/" in address or not _is_among(address, ours):
            continue
        if has_tls and address not in facts.by_tls:
            yield f"speaks plain SPOP to {address}, where we speak TLS: set KAT_AGENT_CA"
        elif not has_tls and address in facts.by_tls:
            yield f"speaks TLS to {address}, where we do not: set listen.cert_file"


def _unanswerable(config: Config, facts: HaproxyFacts, proxy: Proxy) -> Iterator[str]:
    """Find messages that lack what the mode of their ACL is decided by."""
    for name, message in product(dict.fromkeys(proxy.acls), facts.asked(proxy)):
        acl, needs = config.acl.get(name), _NEEDS.get(message)
        if acl is None or needs is None:
            continue
        about = f"{proxy.name} sends {message} for the ACL {name}, whose mode is {acl.mode.value}"
        if acl.mode not in needs:
            able = " or ".join(mode.value for mode in needs)
            yield f"{about}: only {able} can be asked so"
        elif missing := _missing(acl, needs[acl.mode], facts.messages.get(message, {})):
            yield f"{about}, without its arguments {', '.join(missing)}"


def _nameless(config: Config, facts: HaproxyFacts, proxy: Proxy) -> Iterator[str]:
    """Find gates that cannot tell one browser from another, where tokens must be bound to one."""
    for name, acl, args in _gates(config, facts, proxy):
        # Not sent at all, or from a variable that nothing sets.
        if acl.nonce is Nonce.REQUIRED and not any(_fillings(facts, args.get("nonce", ""))):
            yield (
                f"{proxy.name} asks for the ACL {name}, whose nonce is required, but sends none "
                "(KAT_NONCE_KEY): no link would open it"
            )


def _missing(acl: Acl, needed: tuple[str, ...], sent: Mapping[str, str]) -> list[str]:
    is_bound = acl.mode is Mode.SESSION and acl.session.bind is not Bind.OFF
    more = ("acl", "src") if is_bound else ("acl",)
    return [name for name in (*more, *needed) if name not in sent]


def _sessionless(config: Config, facts: HaproxyFacts, proxy: Proxy) -> Iterator[str]:
    """Find gates that neither open the sessions of their ACL nor look at them."""
    for name, acl, args in _gates(config, facts, proxy):
        if acl.mode is not Mode.SESSION:
            continue
        about = f"{proxy.name} asks for the ACL {name}, whose mode is session, but"
        if "session" in args and not _fillings(facts, args["session"]):
            yield (
                f"{about} {_variable(args['session'])} is never set: no cookie is looked at, "
                "each request needs a token"
            )
        if "via" in args and set(_fillings(facts, args["via"])) <= {"str(header)"}:
            yield (
                f"{about} {_variable(args['via'])} is never set to query or form: no token "
                "opens a session"
            )


def _asking_in_vain(config: Config, facts: HaproxyFacts, proxy: Proxy) -> Iterator[str]:
    """Find pages that ask before a token is consumed, where it would open one request: theirs."""
    for name, acl, args in _gates(config, facts, proxy):
        if acl.mode in _ONCE and "str(form)" in _fillings(facts, args.get("via", "")):
            yield (
                f"{proxy.name} asks visitors before a token is consumed (KAT_CONFIRM), but the "
                f"ACL {name} is {acl.mode.value}: the page behind it would need another one"
            )


def _gates(
    config: Config, facts: HaproxyFacts, proxy: Proxy
) -> Iterator[tuple[str, Acl, Mapping[str, str]]]:
    """Name the ACLs that a proxy has HTTP requests judged for, with the arguments that it sends."""
    if "check-http" in facts.asked(proxy):
        for name in dict.fromkeys(proxy.acls):
            if acl := config.acl.get(name):
                yield name, acl, facts.messages.get("check-http", {})


def _fillings(facts: HaproxyFacts, expression: str) -> list[str]:
    """Say what an argument may hold: what its variable is set to, or what it is itself."""
    found = _VARIABLE.match(expression)
    return facts.variables.get(found[1], []) if found else [expression]


def _variable(expression: str) -> str:
    found = _VARIABLE.match(expression)
    return found[1] if found else expression


def _hasty(facts: HaproxyFacts, proxy: Proxy) -> Iterator[str]:
    """Find what would not wait for the agent: HAProxy then goes on without its answer."""
    if not proxy.is_tcp:
        return
    if proxy.inspect_delay_ms is None:
        yield f"{proxy.name} has no `tcp-request inspect-delay`: it would turn everybody away"
        return
    for processing_ms in facts.processing_ms:
        if proxy.inspect_delay_ms <= processing_ms < float("inf"):
            yield (
                f"`tcp-request inspect-delay` of {proxy.name} is {proxy.inspect_delay_ms:g} ms, "
                f"`timeout processing` {processing_ms:g} ms: it would not wait for the agent"
            )
