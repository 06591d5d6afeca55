"""HAProxy's Runtime API, for those who keep its ACLs: what they want to know and do.

    runtime = Runtime(UnixPlace("/run/haproxy/kat.sock"))
    async with runtime.session() as session:
        await session.need_admin()
        refused = await session.replace("#500", ["192.0.2.7/032"])

A session speaks to one process as long as it lasts: after a reload the old one goes on answering,
with its own ACLs and streams, and says `is_stopping`. Everything raises Unreachable; NoAdmin where
the socket's level is too low; ValueError for a name or a text that cannot be sent as it is.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

from haproxy.runtime import answers, words
from haproxy.runtime.answers import AclName, Process, Stream
from haproxy.runtime.connection import Connection, connected
from haproxy.runtime.place import RuntimePlace
from haproxy.runtime.refusals import (
    is_gone,
    is_of_pattern,
    no_admin,
    not_kept,
    refusal,
    wrong_acl,
    wrong_table,
)

__all__ = ["AclName", "Process", "Runtime", "Session", "Stream"]

_Answer = TypeVar("_Answer")

_TIMEOUT_S: Final = 2.0
"""For connecting, and for each step: HAProxy answers within milliseconds, at 5,000 entries too."""


class Runtime:
    """One HAProxy's Runtime API. Holds no connection: each session makes its own."""

    def __init__(self, place: RuntimePlace, timeout_s: float = _TIMEOUT_S) -> None:
        self.place = place
        self._timeout_s = timeout_s

    def session(self) -> AbstractAsyncContextManager["Session"]:
        """Give one connection for many commands, one after the other. Raises Unreachable."""
        return self._session()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator["Session"]:
        async with connected(self.place, self._timeout_s) as connection:
            yield Session(connection)


class Session:
    """Commands to one HAProxy process, one after the other. Get one from Runtime.session."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._place = connection.place
        self._tables: set[str] = set()

    async def ask(self, *command: str) -> str:
        """Return HAProxy's answer as it is, whether it did what it was asked for or not."""
        return (await self._ask([command]))[0]

    async def process(self) -> Process:
        """Say whom this session speaks to."""
        return await self._read(answers.read_process, "show", "info")

    async def need_admin(self) -> None:
        """Raise NoAdmin unless the level of the socket is admin."""
        level = await self._read(answers.read_level, "show", "cli", "level")
        if level != "admin":
            raise no_admin(self._place, level)

    async def acls(self) -> list[AclName]:
        """List all ACLs of the configuration, of addresses or not."""
        return await self._read(answers.read_acls, "show", "acl")

    async def need_addresses(self, acl: str) -> None:
        """Raise WrongType for an ACL that compares no addresses, UnknownAcl if there is none.

        An ACL of texts takes an address without a word, and never matches a client's.
        """
        # What it is asked for does not matter: it says what it would compare it as.
        types = await self._read(answers.read_types, "get", "acl", words.acl_name(acl), "::")
        if "ip" not in types:
            raise wrong_acl(self._place, acl, types)

    async def entries(self, acl: str) -> list[str]:
        """Return the entries as they were written, in HAProxy's order. Raises UnknownAcl."""
        return await self._read(answers.read_entries, "show", "acl", words.acl_name(acl))

    async def add(self, acl: str, patterns: Sequence[str]) -> dict[str, str]:
        """Add entries; return those that HAProxy refuses, and its words. Raises UnknownAcl.

        A text that stands there already then stands there twice.
        """
        return await self._add([words.acl_name(acl)], patterns)

    async def delete(self, acl: str, patterns: Sequence[str]) -> None:
        """Delete all entries of these very texts; what is not there is no error.

        Another spelling of the same address stays, and goes on matching. Raises UnknownAcl.
        """
        name = words.acl_name(acl)
        commands = [("del", "acl", name, words.pattern(pattern)) for pattern in patterns]
        for command, said in zip(commands, await self._ask(commands), strict=True):
            if said and not is_gone(said):
                raise refusal(self._place, command, said)

    async def replace(self, acl: str, patterns: Sequence[str]) -> dict[str, str]:
        """Put these entries in the place of all others, at once; return those that are refused.

        Whatever is raised, the ACL is as it was; but nobody knows when the connection ends between
        the commit and its answer. Entries that others add meanwhile are lost. What is written and
        never committed matches nobody, and the next `replace` frees it. Raises UnknownAcl, and
        Refused if somebody else replaced them meanwhile.
        """
        name = words.acl_name(acl)
        version = f"@{await self._read(answers.read_version, 'prepare', 'acl', name)}"
        refused = await self._add([version, name], patterns)
        await self._do("commit", "acl", version, name)
        return refused

    async def beat(self, table: str, key: str) -> None:
        """Let a key stand in a stick-table for as long as the table's `expire`, from now on.

        Raises UnknownTable; WrongType for a table that would not keep it so.
        """
        await self._need_table(table)
        await self._do("set", "table", table, "key", key, "data.gpc0", "1")
        kept = await self._read(answers.read_table, "show", "table", table, "key", key)
        if not kept.expiries_ms.get(key):
            await self.ask("clear", "table", table, "key", key)  # or it would stand there for ever
            raise not_kept(self._place, table, key, is_cut=key not in kept.expiries_ms)

    async def beats(self, table: str) -> dict[str, int]:
        """Return the keys of a stick-table and the ms until each expires. Raises UnknownTable."""
        return (await self._read(answers.read_table, "show", "table", table)).expiries_ms

    async def frontends(self) -> list[str]:
        """Name what clients connect to: frontends, and `listen` sections."""
        return await self._read(answers.read_frontends, "show", "stat", "-1", "1", "-1")

    async def streams(self) -> list[Stream]:
        """List what goes through HAProxy now, this very connection among it."""
        return await self._read(answers.read_streams, "show", "sess")

    async def shut(self, stream: str) -> bool:
        """Tell HAProxy to end a stream that `streams` gave; False if it is gone already.

        TCP and WebSockets end; a client of HTTP may be told 502, and ask again. What HAProxy
        2.6 keeps in `wait-for-body` goes on to wait. An id is a place in memory, and may be another
        stream's a moment later: list and end in one session, or it may be this one's own.
        """
        command = ("shutdown", "session", words.stream_id(stream))
        said = await self.ask(*command)
        if said and not is_gone(said):
            raise refusal(self._place, command, said)
        return not said

    async def _add(self, where: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
        commands = [("add", "acl", *where, pattern) for pattern in patterns]
        refused: dict[str, str] = {}
        for command, said in zip(commands, await self._ask(commands), strict=True):
            if not said:
                continue
            fault = refusal(self._place, command, said)
            if not is_of_pattern(fault):
                raise fault
            refused[command[-1]] = fault.said
        return refused

    async def _need_table(self, table: str) -> None:
        """Raise unless a table holds texts, and we may write to it. HAProxy is asked once.

        Before anything is written: 2.6 makes 0.0.0.0 of a text for a table of addresses, without
        a word; and 3.0.11 at level user makes the entry, says "Permission denied", and never
        lets it expire.
        """
        if table in self._tables:
            return
        # None is below 0: that shows the table's type, and none of its keys.
        question = ("show", "table", table, "data.gpc0", "lt", "0")
        found = await self._read(answers.read_table, *question)
        if found.type != "string":
            raise wrong_table(self._place, table, found.type)
        self._tables.add(table)

    async def _read(self, read: Callable[[str], _Answer], *command: str) -> _Answer:
        """Ask, and return what was read from the answer. Raises Refused."""
        said = await self.ask(*command)
        try:
            return read(said)
        except answers.Unreadable:
            raise refusal(self._place, command, said) from None

    async def _do(self, *command: str) -> None:
        """Tell HAProxy to do what it does without a word. Raises Refused for any."""
        if said := await self.ask(*command):
            raise refusal(self._place, command, said)

    async def _ask(self, commands: Sequence[Sequence[str]]) -> list[str]:
        return await self._connection.ask([words.command(command) for command in commands])
