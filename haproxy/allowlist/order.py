"""What is to be kept in one HAProxy, as the operator says it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from haproxy.allowlist.change import Foreign
from haproxy.runtime.place import RuntimePlace


@dataclass(frozen=True, slots=True)
class Order:
    """One HAProxy, and what of it is kept."""

    name: str
    runtime: RuntimePlace
    acls: Mapping[str, tuple[str, ...]]
    """ACL of the grants -> those in HAProxy that are to hold them: `#500`, a file, `virt@...`."""
    heartbeat: str = ""
    """The stick-table that is told of each ACL that is right; empty: none."""
    foreign: Foreign = Foreign.KEEP
    shut: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """ACL of the grants -> frontends whose connections end with the grant of their address."""

    @property
    def grants(self) -> frozenset[str]:
        """The ACLs whose grants it takes to know what to do."""
        return frozenset(self.acls) | frozenset(self.shut)

    @property
    def names(self) -> tuple[str, ...]:
        """All of its ACLs in HAProxy."""
        return tuple(name for names in self.acls.values() for name in names)


def grants_of(orders: Iterable[Order]) -> list[str]:
    """List the ACLs whose grants several of them take."""
    return sorted({acl for order in orders for acl in order.grants})
