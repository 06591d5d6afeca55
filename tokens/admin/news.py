"""A channel of PUBLISH, listened to: whether there is news, and no more than that."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import redis

from tokens.store.client import TIMEOUT_S

if TYPE_CHECKING:
    from redis.connection import Connection

EVERYBODY: Final = b"*"
"""What is published for the readers of every ACL: none can be called that."""

_MARK: Final = b"kat"
_PONG: Final = [b"pong", _MARK]

# A server that hangs up on whoever it has just welcomed must not be asked without a pause.
_MIN_LIFE_S: Final = 1.0


class News:
    """A subscription. Who reads confirms it first, so that whatever changes after it is heard.

    On a connection of its own, and without the PubSub of `redis`, which connects anew by itself
    wherever it meets an error: it would do so while somebody waits who has to be back in time, and
    tell nobody that it heard nothing meanwhile.
    """

    def __init__(
        self, home: Callable[[], redis.Redis], channel: bytes, names: frozenset[bytes]
    ) -> None:
        """Listen at the server that `home` gives, for these names and EVERYBODY."""
        self._home = home
        self._channel = channel
        self._names = names | {EVERYBODY}
        self._line: tuple[redis.Redis, Connection] | None = None
        self._subscribed_at = 0.0

    def confirm(self) -> bool:
        """Be subscribed on return; tell whether that took a new subscription.

        What was published before is told to nobody any more, and a connection that died without a
        word does not survive this. Raises redis.RedisError.
        """
        if self._line is not None and self._answers(self._line[1]):
            return False
        self.close()
        self._subscribe()
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until something is published, or the subscription is lost: that may be missed news.

        False when the time is over. Without a subscription that is all that happens.
        """
        until = time.monotonic() + timeout_s
        if self._line is None:
            time.sleep(timeout_s)
            return False
        _, connection = self._line
        try:
            while connection.can_read(max(0.0, until - time.monotonic())):
                if self._is_news(connection.read_response()):
                    return True
        except (redis.RedisError, OSError):
            self.close()
            if time.monotonic() < self._subscribed_at + _MIN_LIFE_S:
                time.sleep(max(0.0, until - time.monotonic()))
            return True
        return False

    def close(self) -> None:
        """Give the subscription up, until it is confirmed again."""
        if self._line is not None:
            server, connection = self._line
            self._line = None
            connection.disconnect()  # type: ignore[no-untyped-call]
            server.connection_pool.release(connection)

    def _subscribe(self) -> None:
        server = self._home()
        connection = server.connection_pool.get_connection()
        self._line = (server, connection)
        try:
            connection.send_command("SUBSCRIBE", self._channel)  # type: ignore[no-untyped-call]
            _next(connection)  # what is not welcome is raised as an error
        except BaseException:
            self.close()
            raise
        self._subscribed_at = time.monotonic()

    def _answers(self, connection: "Connection") -> bool:
        """Ask for a sign of life, and pass over all that comes before it."""
        try:
            connection.send_command("PING", _MARK)  # type: ignore[no-untyped-call]
            while (said := _next(connection)) != _PONG:
                if not isinstance(said, list):
                    return False  # it is no subscription any more
        except (redis.RedisError, OSError):
            return False
        return True

    def _is_news(self, said: object) -> bool:
        match said:
            case [b"message", self._channel, bytes(name)]:
                return name in self._names
            case _:
                return False


def _next(connection: "Connection") -> object:
    if not connection.can_read(TIMEOUT_S):
        raise redis.TimeoutError("the subscription is silent")
    said: object = connection.read_response()
    return said
