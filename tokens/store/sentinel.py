"""Where the primary is just now, as Sentinels tell it.

They are asked before every attempt to connect, and every second besides: after a failover in good
order the old primary goes on for ten seconds, as if nothing had happened. What they say may be old,
too: the greeting refuses a server that is no primary, and they are asked anew.
"""

import asyncio
from contextlib import suppress

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tokens.store.advice import NO_SENTINEL, of_tls
from tokens.store.client import finish, nobody_named, sentinel_settings, spoken
from tokens.store.place import Place
from tokens.store.primary import Primary
from tokens.store.tls import TlsFiles, client_context
from tokens.store.url import Host, SentinelUrl
from tokens.store.wire import StoreUnavailable

# A Sentinel that is silent is passed over. All of them, and the greeting that follows, must fit
# into one attempt to connect, of 2 s.
_LONGEST_ANSWER_S = 0.3
_LONGEST_ROUND_S = 1.2

_ASK_INTERVAL_S = 1.0


class Sentinels:
    """Asks one Sentinel after the other; the one that knew last time comes first."""

    def __init__(self, url: SentinelUrl, tls: TlsFiles) -> None:
        """Look at the TLS files now: raises ValueError when they cannot be used."""
        self._url = url
        self._ssl = client_context(tls) if url.is_tls else None
        self._located: Place | None = None
        answer_s = min(_LONGEST_ANSWER_S, _LONGEST_ROUND_S / len(url.sentinels))
        settings = sentinel_settings(url, tls, answer_s)
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            url.sentinels, sentinel_kwargs={**settings, "retry": Retry(NoBackoff(), 0)}
        )

    async def locate(self) -> Place:
        """Name the primary. Raises StoreUnavailable when nobody knows one that is up."""
        self._located = await self._ask()
        return self._located

    async def is_elsewhere(self) -> bool:
        """Whether the primary is not any more where it was located last."""
        with suppress(StoreUnavailable):
            return await self._ask() != self._located
        return False

    async def close(self) -> None:
        """Leave the Sentinels; they may be asked again."""
        for client in self._sentinel.sentinels:
            await client.aclose()

    async def _ask(self) -> Place:
        try:
            name, port = await finish(self._sentinel.discover_master(self._url.service))
        except MasterNotFoundError as error:
            raise StoreUnavailable("connect", nobody_named(self._url, error)) from None
        except ResponseError as error:
            if "unknown command" in str(error):
                why = f"one of {', '.join(map(str, self._url.sentinels))}: {NO_SENTINEL}"
                raise StoreUnavailable("mode", why) from None
            raise StoreUnavailable("connect", f"a Sentinel refuses: {spoken(error)}") from None
        except (RedisError, OSError) as error:
            why = f"a Sentinel refuses: {spoken(error)}{of_tls(error)}"
            raise StoreUnavailable("connect", why) from None
        return self._url.place(Host(name, port), self._ssl)


class WatchedPrimary:
    """The store that Sentinels lead to."""

    def __init__(self, sentinels: Sentinels, primary: Primary) -> None:
        """Take a primary that is located by these Sentinels."""
        self._sentinels = sentinels
        self._primary = primary
        self.execute = primary.execute
        self.distrust = primary.distrust

    async def run(self) -> None:
        """Keep a connection to whichever server is the primary."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._primary.run()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self._sentinels.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_ASK_INTERVAL_S)
            if await self._sentinels.is_elsewhere():
                self._primary.distrust("readonly", "the Sentinels name another primary")
