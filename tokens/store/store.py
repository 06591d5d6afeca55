"""Where tokens live, as the gate sees it: something that executes questions.

What stands behind it, one Redis, what Sentinels lead to, or a cluster, is the URL's to say.
"""

from collections.abc import Sequence
from typing import Protocol

from tokens.question import Question
from tokens.store.cluster import Cluster
from tokens.store.fence import FenceHash
from tokens.store.line import Locate
from tokens.store.place import Place
from tokens.store.primary import Primary
from tokens.store.sentinel import Sentinels, WatchedPrimary
from tokens.store.settings import StoreSettings
from tokens.store.tls import client_context
from tokens.store.url import ClusterUrl, SentinelUrl, ServerUrl, parse_store_url
from tokens.store.wire import Observer, Settle


class Store(Protocol):
    """Executes questions. Heals by itself, and never makes anybody wait beyond the deadline."""

    def execute(
        self,
        questions: Sequence[Question],
        settle: Settle,
        give_up_at: float,
        *,
        is_repeatable: bool = True,
    ) -> None:
        """Ask all at once. `settle` is called exactly once, now or later.

        It takes all replies, in the order of the questions, or StoreUnavailable. After
        `give_up_at`, a time.monotonic(), nothing is written to Redis. What `is_repeatable` may be
        asked a second time when no reply comes, and anew when a script did not run.
        """

    def distrust(self, kind: str, message: str) -> None:
        """Hear of an error reply, or of one that fits no question; start anew if that helps."""

    async def run(self) -> None:
        """Keep the connections for as long as the worker lives."""


def open_store(settings: StoreSettings, observer: Observer) -> Store:
    """Make the store that the URL names. Nothing is connected before it runs.

    Raises ValueError, with a sentence, for a URL or TLS files that cannot be used.
    """
    match parse_store_url(settings.url):
        case ServerUrl() as server:
            place = server.place(client_context(settings.tls) if server.is_tls else None)
            return _primary(settings, observer, _always(place))
        case SentinelUrl() as watched:
            sentinels = Sentinels(watched, settings.tls)
            return WatchedPrimary(sentinels, _primary(settings, observer, sentinels.locate))
        case ClusterUrl() as cluster:
            return Cluster(cluster, settings, observer)


def _primary(settings: StoreSettings, observer: Observer, locate: Locate) -> Primary:
    fences = FenceHash(settings.fence_key, settings.clock_skew_ms, is_fenced=settings.is_fenced)
    scripts, deadline_s = settings.scripts, settings.deadline_s
    return Primary(locate, fences, scripts, deadline_s, observer, probe=settings.probe)


def _always(place: Place) -> Locate:
    async def locate() -> Place:
        return place

    return locate
