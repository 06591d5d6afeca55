"""What `kat check` says of the HAProxy that `kat allowlist` keeps."""

from collections.abc import Iterator

from haproxy.allowlist.show import Row, rows
from spoa.config.model import Config
from spoa.orders import orders_of, source_of
from tokens.store.client import StoreFault


def kept(config: Config) -> Iterator[tuple[bool, str]]:
    """Ask each HAProxy: whether its ACLs are as they ought to be, and a sentence.

    Nothing if Redis is away: that is said already.
    """
    try:
        found = rows(source_of(config), orders_of(config)) if config.allowlist else []
    except ValueError as error:
        yield False, str(error)
        return
    except StoreFault:
        return
    # One HAProxy that is away is one sentence, however many ACLs it has.
    yield from dict.fromkeys((row.is_equal, f"{row.haproxy}: {_sentence(row)}") for row in found)


def _sentence(row: Row) -> str:
    if row.fault:
        return row.fault
    grants = f"the grants of {row.acl} in {row.name}"
    if not row.name:
        return "answers; connections of blocked addresses are ended there"
    if row.is_alone and row.others:
        return f"{row.name} has {row.others} entries of others: is `kat allowlist` running?"
    if row.missing or row.surplus:
        return (
            f"of {grants} {len(row.missing)} are missing and {len(row.surplus)} are too many: is "
            "`kat allowlist` running?"
        )
    if not row.is_equal:
        return f"{row.heartbeat} has no heartbeat of {row.acl}: is `kat allowlist` running?"
    return f"{row.wanted} of {row.wanted} of {grants}"
