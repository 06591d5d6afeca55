"""Who is in the cluster, as any of its nodes tells it: through `redis`, and off the hot way."""

import random
from collections.abc import Iterable

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tokens.store.advice import NO_CLUSTER, SENTINEL, advise, of_tls
from tokens.store.client import client_settings, finish, spoken
from tokens.store.slots import SlotRange, hosts, read_slots
from tokens.store.tls import TlsFiles
from tokens.store.url import ClusterUrl, Host
from tokens.store.wire import StoreUnavailable

# A node that is silent is passed over: the others know as well.
_LONGEST_ANSWER_S = 0.3


class Discovery:
    """Asks the nodes that are known, in another order each time: one of them may be mistaken."""

    # `redis.asyncio.RedisCluster` reads the same answer, but slot by slot: that stops the loop of
    # a worker for 5 ms, and it wants permission for COMMAND, too.

    def __init__(self, url: ClusterUrl, tls: TlsFiles) -> None:
        self._seeds = url.seeds
        self._known = list(url.seeds)
        self._settings = client_settings(url, tls, _LONGEST_ANSWER_S)

    async def slots(self, unreachable: Iterable[Host] = ()) -> list[SlotRange]:
        """Return who has which slots. Raises StoreUnavailable when nobody tells.

        Those which are known to be unreachable are asked last.
        """
        last = set(unreachable)
        random.shuffle(self._known)
        fault = StoreUnavailable("connect", "no node of the cluster is known")
        for host in sorted(self._known, key=last.__contains__):
            try:
                ranges = await finish(self._ask(host))
            except (RedisError, OSError, ValueError) as error:
                fault = _fault(host, error)
            else:
                self._known = list(dict.fromkeys([*hosts(ranges), *self._seeds]))
                return ranges
        raise fault

    async def _ask(self, host: Host) -> list[SlotRange]:
        retry = Retry(NoBackoff(), 0)
        async with Redis(host=host.name, port=host.port, retry=retry, **self._settings) as client:
            # As two words: as one, `redis` would read the answer, and differently in each release.
            reply = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
            return read_slots(reply, host)


def _fault(host: Host, error: Exception) -> StoreUnavailable:
    said = spoken(error)
    if "cluster support disabled" in said:
        return StoreUnavailable("mode", f"{host}: {NO_CLUSTER}")
    if "unknown command" in said:
        return StoreUnavailable("mode", f"{host}: {SENTINEL}")
    why = advise(f"{host} does not name the cluster: {said}{of_tls(error)}")
    return StoreUnavailable("connect", why)
