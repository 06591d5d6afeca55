"""Every metric of the program, once: names and meanings for what counters.py holds.

The supervisor exposes it at /metrics. Workers import spoa.counters, never this module.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, product

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from spoa.counters import BATCH_SIZES, CLOSED_BY, REASONS, SECONDS, STORE_ERRORS, merged
from spoa.fleet import Fleet
from spoa.spop.constants import StatusCode
from spoa.version import version


class Exposition:
    """The metrics as text, in whichever format the scraper asks for."""

    def __init__(self, fleet: Fleet) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(KatCollector(fleet))

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Give the text and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class KatCollector(Collector):
    """Reads the workers' cells when it is scraped, and keeps nothing."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._layout = fleet.counters.layout

    def collect(self) -> Iterator[Metric]:
        cells, floats = merged(self._fleet.counters)
        yield self._requests(cells)
        yield from self._opened(cells)
        yield from self._histograms(cells, floats)
        yield from self._connections(cells)
        yield from self._store(cells)
        yield from self._workers()

    def _requests(self, cells: Sequence[int]) -> Metric:
        family = CounterMetricFamily("kat_requests", "Requests answered.", labels=["acl", "reason"])
        for acl, reason in product(self._layout.acls, REASONS):
            family.add_metric([acl, reason], cells[self._layout.request(acl, reason)])
        return family

    def _opened(self, cells: Sequence[int]) -> Iterator[Metric]:
        layout = self._layout
        for name, meaning, cell in (
            ("kat_sessions_opened", "Sessions that tokens opened.", layout.sessions_opened),
            ("kat_grants_opened", "Addresses that tokens opened.", layout.grants_opened),
            (
                "kat_audit_lost",
                "Audit entries that Redis did not take, each of one event or many.",
                layout.audit_lost,
            ),
        ):
            yield CounterMetricFamily(name, meaning, cells[cell])

    def _histograms(self, cells: Sequence[int], floats: Sequence[float]) -> Iterator[Metric]:
        for name, meaning, start, bounds in (
            (
                "kat_decision_seconds",
                "From a request's arrival at the agent to its answer.",
                self._layout.latency,
                SECONDS,
            ),
            (
                "kat_redis_round_trip_seconds",
                "From the write of a batch to Redis to its last reply.",
                self._layout.redis,
                SECONDS,
            ),
            ("kat_batch_requests", "Requests in one batch.", self._layout.batch, BATCH_SIZES),
        ):
            end = start + len(bounds) + 1
            yield _histogram(name, meaning, bounds, cells[start:end], floats[end])

    def _connections(self, cells: Sequence[int]) -> Iterator[Metric]:
        layout = self._layout
        yield GaugeMetricFamily(
            "kat_in_flight", "Requests taken and not yet answered.", cells[layout.in_flight]
        )
        yield GaugeMetricFamily(
            "kat_spop_connections", "Open SPOP connections.", cells[layout.connections]
        )
        yield CounterMetricFamily(
            "kat_spop_connects", "SPOP connections accepted.", cells[layout.opened]
        )
        ends = CounterMetricFamily(
            "kat_spop_disconnects",
            "SPOP connections ended, by SPOP status and by who ended them.",
            labels=["status", "by"],
        )
        for status, by in product(StatusCode, CLOSED_BY):
            ends.add_metric([str(int(status)), by], cells[layout.disconnect(status, by)])
        yield ends
        errors = CounterMetricFamily(
            "kat_spop_protocol_errors", "Bytes that are not SPOP, by status.", labels=["status"]
        )
        for status in StatusCode:
            errors.add_metric([str(int(status))], cells[layout.protocol_error(status)])
        yield errors

    def _store(self, cells: Sequence[int]) -> Iterator[Metric]:
        counters = self._fleet.counters
        up = GaugeMetricFamily(
            "kat_store_up",
            "1 while a worker can use Redis, a cluster as a whole.",
            labels=["worker"],
        )
        for index in range(counters.workers):
            up.add_metric([str(index)], counters.is_store_up(index))
        yield up
        errors = CounterMetricFamily(
            "kat_store_errors", "Batches that Redis did not answer, by cause.", labels=["kind"]
        )
        for offset, kind in enumerate(STORE_ERRORS):
            errors.add_metric([kind], cells[self._layout.store_errors + offset])
        yield errors
        yield CounterMetricFamily(
            "kat_store_asked_again",
            "Batches sent a second time, because the replies to the first were lost.",
            cells[self._layout.asked_again],
        )
        yield CounterMetricFamily(
            "kat_store_fence_moves",
            "Restarts and promotions of Redis, as each worker met them.",
            cells[self._layout.fence_moves],
        )

    def _workers(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("kat_workers", "Worker processes running.", self._fleet.running)
        yield CounterMetricFamily(
            "kat_worker_restarts", "Workers started again after a death.", self._fleet.restarts
        )
        yield InfoMetricFamily("kat_build", "The running release.", {"version": version()})


def _histogram(
    name: str, meaning: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Metric:
    """Turn counts per bucket into the cumulative ones that Prometheus reads."""
    upper = [*map(floatToGoString, bounds), "+Inf"]
    buckets = [(le, float(n)) for le, n in zip(upper, accumulate(counts), strict=True)]
    return HistogramMetricFamily(name, meaning, buckets=buckets, sum_value=total)
