"""What Redis refuses an admin, in words for people. Pure.

Redis words it for who wrote the script: with its hash, its line and the command in it.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import redis
from redis.exceptions import AskError, MovedError

from tokens.store.client import StoreFault
from tokens.store.url import parse_store_url

_FULL: Final = "it is full, used_memory has reached maxmemory: raise maxmemory"
_OF_CLUSTER: Final = "it is a node of a cluster: store.url must be redis+cluster://..."
_MAX_CHARS: Final = 200

# By what Redis says: redis-py takes most codes off, and Redis 6.2 puts the place in a script first.
_PLAIN: Final = (
    (r"used memory > 'maxmemory'", _FULL),
    (
        r"read only replica",
        "it is a replica, which takes no changes: name its primary in store.url, or Sentinels",
    ),
    (r"no permissions to run the '(\S+?)' command", "its user may not run {}"),
    (r"can't run this command", "its user may not run a command of the script"),
    (r"permissions to access .*channel", "its user may not use a channel"),
    (r"permissions to access|can't access at least one of the keys", "its user may not use a key"),
    (r"cluster is down|slot not served", "its cluster is down: some of its slots nobody serves"),
    (r"good replicas", "too few of its replicas are in reach, see min-replicas-to-write"),
    (r"unable to persist|MISCONF", "it cannot save and takes no changes: see its log and its disk"),
    (r"wrong kind of value", "one of the keys holds something else: see what wrote it"),
)

_of_script = re.compile(
    r"(Error running script \(.*?\): )?(@\S+?: ?\d+: ?)+-?|,? ?script: [0-9a-f]{40}.*", re.DOTALL
)


def plain(error: Exception) -> str:
    """Say why Redis refused, or did not answer, in part of a sentence."""
    if isinstance(error, MovedError | AskError):
        return _OF_CLUSTER
    said = str(error)
    for pattern, sentence in _PLAIN:
        if found := re.search(pattern, said, re.IGNORECASE):
            return sentence.format(*(name.upper() for name in found.groups()))
    return _of_script.sub("", said)[:_MAX_CHARS].rstrip(". ")


def is_full(error: Exception) -> bool:
    return plain(error) == _FULL


@contextlib.contextmanager
def speaking_plainly(url: str) -> Iterator[None]:
    """Let what Redis refuses be a StoreFault with a sentence; what else it does, is not ours."""
    place = parse_store_url(url)
    try:
        yield
    except redis.ResponseError as error:
        # Not chained: the sentence says all.
        raise StoreFault(f"Redis at {place} refuses: {plain(error)}") from None
