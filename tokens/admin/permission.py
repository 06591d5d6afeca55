"""What a Redis user may do, asked without doing it."""

from redis.exceptions import NoPermissionError, ResponseError

from tokens.store.client import Client


def may_append(client: Client, stream: bytes) -> bool:
    """Tell whether this user may add to a stream. Nothing is written, whatever the answer.

    Redis looks at its ACL before it looks at arguments, and at the id before it makes a stream: no
    entry can have the id 0-0. Raises what Redis says of itself: that it is full, lacks replicas,
    or knows no XADD, as a Sentinel.
    """
    try:
        client.execute_command("XADD", stream, "0-0", "event", "none")  # type: ignore[no-untyped-call]
    except NoPermissionError:
        return False
    except ResponseError as error:
        if "0-0" not in str(error):
            raise
        return True
    return True  # unreachable with any Redis there is; then it was written, and so it may
