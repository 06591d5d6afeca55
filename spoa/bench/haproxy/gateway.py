"""The configurations under measurement: haproxy.cfg itself, but for what stands here.

No copy: a line is replaced in the text that HAProxy reads, and one that is not there any more, or
there twice, is a mistake. So all subjects have the same rules, and differ in who is asked.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from haproxy import CONFIGURATION
from spoa.bench.load.corpus import ACL

_SESSION_ACL: Final = b"session"
COOKIE: Final = b"__Host-kat-" + _SESSION_ACL


class Subject(StrEnum):
    """Who says yes, in the order of the table."""

    NO_FILTER = "no filter"
    """HAProxy itself, at once: what the same rules cost without the question."""
    ECHO = "echo agent"
    """An agent that thinks nothing: what HAProxy's SPOE costs."""
    KAT = "kat"
    """The agent, which consumes a token."""
    KAT_SESSION = "kat session"
    """The agent, which knows the session."""
    LUA = "lua"
    """No agent: an action in HAProxy's own Lua, with a connection to Redis for each request."""

    @property
    def acl(self) -> bytes:
        return _SESSION_ACL if self is Subject.KAT_SESSION else ACL

    @property
    def asks(self) -> bool:
        """An agent is asked."""
        return self in {Subject.ECHO, Subject.KAT, Subject.KAT_SESSION}

    @property
    def consumes(self) -> bool:
        return self in {Subject.KAT, Subject.LUA}

    @property
    def names_user(self) -> bool:
        """The answer says whose token or session it was."""
        return self in {Subject.KAT, Subject.KAT_SESSION, Subject.LUA}


_FILTER: Final = '    filter spoe engine kat config "${KAT_FILES-/etc/haproxy}/kat.spoe.conf"\n'
_QUESTION: Final = """\
    http-request send-spoe-group kat logout if logout
    http-request send-spoe-group kat check if !logout
"""
_LEAVES: Final = "    # Behind a chunked body headers may follow,"
_GLOBAL: Final = "\nglobal\n"
_LOG: Final = "    log  global\n"

_YES: Final = """\
    http-request set-var(txn.kat.allow) bool(true)
    http-request set-var(txn.kat.acl) str("${KAT_ACL-demo}")
"""
_LUA: Final = "    http-request lua.ask_redis\n"
_TLS: Final = "    ssl-default-bind-options"
_LUA_LOAD: Final = """\
.if version_atleast(3.1)
    tune.lua.bool-sample-conversion normal
.endif
    lua-load "${KAT_LUA}"
"""
# Behind all rules, where the request would leave: nothing of an application is measured.
_ANSWER: Final = """\
    acl named var(txn.kat.user) -m found
    http-request return status 200 hdr X-KAT-User %[var(txn.kat.user)] if named
    http-request return status 200
"""

_REPLACED: Final[Mapping[Subject, Mapping[str, str]]] = {
    Subject.NO_FILTER: {_FILTER: "", _QUESTION: _YES},
    Subject.ECHO: {},
    Subject.KAT: {},
    Subject.KAT_SESSION: {},
    Subject.LUA: {_FILTER: "", _QUESTION: _LUA, _TLS: _LUA_LOAD + _TLS},
}


def gateway(subject: Subject, threads: int) -> str:
    """Write the configuration of a subject. Raises ValueError if haproxy.cfg is not as expected."""
    text = CONFIGURATION.read_text()
    # A log line for each request is the operator's to want or not, and costs all subjects the same.
    replaced = {
        _GLOBAL: f"{_GLOBAL}    nbthread {threads}\n",
        _LOG: "",
        _LEAVES: _ANSWER + _LEAVES,
        **_REPLACED[subject],
    }
    for line, instead in replaced.items():
        if text.count(line) != 1:
            raise ValueError(f"haproxy.cfg has {text.count(line)} times, not once: {line.strip()}")
        text = text.replace(line, instead)
    return text
