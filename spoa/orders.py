"""What `kat allowlist` is to do, from the configuration."""

from haproxy.allowlist.feed import Source
from haproxy.allowlist.order import Order
from haproxy.runtime.place import RuntimePlace, TcpPlace, UnixPlace
from spoa.config.allowlist import Allowlist
from spoa.config.endpoint import UnixEndpoint, parse_endpoint
from spoa.config.model import Config
from tokens.store.tls import client_context


def source_of(config: Config) -> Source:
    """Name the store that holds the grants."""
    return Source(config.store_url, config.store.tls, config.store.prefix)


def orders_of(config: Config) -> list[Order]:
    """Name every HAProxy that is to be kept. Raises ValueError for TLS files that are none."""
    return [
        Order(name, _place(name, it), it.acl, it.heartbeat, it.foreign, it.shut)
        for name, it in config.allowlist.items()
    ]


def _place(name: str, wanted: Allowlist) -> RuntimePlace:
    endpoint = parse_endpoint(wanted.runtime)
    if isinstance(endpoint, UnixEndpoint):
        return UnixPlace(endpoint.path)
    try:
        tls = client_context(wanted.tls) if wanted.tls else None
    except ValueError as error:
        raise ValueError(f"allowlist.{name}: {error}") from None
    return TcpPlace(endpoint.host, endpoint.port, tls)
