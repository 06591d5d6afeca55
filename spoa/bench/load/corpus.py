"""Tokens by the hundred thousand, and their records in Redis.

`tokens.mint` draws one token well; a round needs 300,000, so they are cut from one random block.
The records are those of a service that sends people to a web application: user, one ACL, two
groups; or bound to the client's network, host, method and path as well. All users' names have the
same length, so all ACKs of a scenario have the same size.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar
from zlib import crc32

import redis

from spoa.bench.fault import Fault
from tokens.record import Keys
from tokens.token import PREFIX, digest, is_well_formed, kid

ACL = b"demo"
"""The ACL of a configuration that names none: strict."""
TTL_S = 3600
GROUPS = (b"staff", b"vpn-users")

CLIENTS = 4096
"""So many addresses ask in turn, each in a /24 of its own."""
HOST = b"app.example.com"
METHOD = b"GET"
PATH = b"/rest/api"
"""All paths are below this one."""

MANY_USERS = 10_000_000
"""More than a round has tokens: no two records are alike, whatever remembers some is no help."""

T = TypeVar("T")

_KEYS = Keys()
_RANDOM_CHARS = 32
_ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# The bias of 256 values over 62 digits is nothing to a benchmark.
_TO_ALPHABET = bytes(_ALPHABET[byte % 62] for byte in range(256))
_PAIRS = [bytes((high, low)) for high in _ALPHABET for low in _ALPHABET]
_RECORD = b'{"v":1,"sub":"%b","acl":["%b"],"ttl":%d,"groups":["' + b'","'.join(GROUPS) + b'"]%b}'
_BINDINGS = (
    b',"src":["%b"],"host":["' + HOST + b'"],"method":["' + METHOD + b'"],"path":["' + PATH + b'"]'
)
_SET = b"*6\r\n$3\r\nSET\r\n$70\r\n%b\r\n$%d\r\n%b\r\n$2\r\nEX\r\n$4\r\n%d\r\n$2\r\nNX\r\n"
_SET_REPLY = b"+OK\r\n"
_CHUNK = 1000

_REAP = """
local consumed, whole = 0, 0
for _, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if value and string.sub(value, 1, 9) == 'consumed ' then consumed = consumed + 1
  elseif value then whole = whole + 1 end
  redis.call('UNLINK', key)
end
return {consumed, whole}
"""


class Issued(NamedTuple):
    """One token of a run, and what an ACK says about it."""

    text: bytes
    digest: bytes
    user: bytes
    session: bytes = b""
    """The id of a session that it has opened, if the requests bring that."""

    @property
    def kid(self) -> bytes:
        return kid(self.digest)


def mint(count: int, users: int = MANY_USERS) -> list[Issued]:
    """Draw well-formed tokens that no Redis knows yet, for so many users in turn."""
    block = os.urandom(count * _RANDOM_CHARS).translate(_TO_ALPHABET)
    texts = [_seal(block[at : at + _RANDOM_CHARS]) for at in range(0, len(block), _RANDOM_CHARS)]
    if texts and not is_well_formed(texts[0]):
        raise AssertionError("these are not the tokens of tokens.token any more")
    return [Issued(text, digest(text), b"user%07d" % (n % users)) for n, text in enumerate(texts)]


def spoil(token: Issued) -> Issued:
    """Give a token a wrong checksum, so that the agent refuses it without asking Redis."""
    last = b"1" if token.text.endswith(b"0") else b"0"
    text = token.text[:-1] + last
    return Issued(text, digest(text), token.user)


def client_address(index: int) -> bytes:
    """Say from where the index-th request comes, in network order."""
    return b"\x0a" + (index % CLIENTS).to_bytes(2, "big") + b"\x07"


def issue(
    redis_socket: str, tokens: Iterable[Issued], acl: bytes = ACL, *, is_bound: bool = False
) -> None:
    """Write the records: one pipelined SET .. EX .. NX each, as the contract has it.

    The index-th token is bound to where the index-th request comes from, if at all.
    """
    with socket.socket(socket.AF_UNIX) as store:
        store.connect(redis_socket)
        for chunk in chunks(enumerate(tokens)):
            store.sendall(b"".join([_set_command(*one, acl, is_bound) for one in chunk]))
            expected = _SET_REPLY * len(chunk)
            reply = store.recv(len(expected), socket.MSG_WAITALL)
            if reply != expected:
                raise Fault(f"Redis answered {reply[:80]!r} to a SET")


class Found(NamedTuple):
    """In what state Redis had the tokens of a round, by number. Others it did not know."""

    consumed: int
    whole: int


def reap(redis_socket: str, tokens: Iterable[Issued]) -> Found:
    """Remove the tokens of a round, and say how they were found. All are looked at."""
    consumed = whole = 0
    with redis.Redis(unix_socket_path=redis_socket) as client:
        script = client.register_script(_REAP)
        for chunk in chunks(tokens):
            counts = script(keys=[_KEYS.token(token.digest) for token in chunk])
            consumed, whole = consumed + counts[0], whole + counts[1]
    return Found(consumed, whole)


def _seal(body: bytes) -> bytes:
    text = PREFIX + body
    check = crc32(text)
    high, low = divmod(check % 62**4, 62**2)
    return text + _PAIRS[check // 62**4] + _PAIRS[high] + _PAIRS[low]


def _set_command(index: int, token: Issued, acl: bytes, is_bound: bool) -> bytes:  # noqa: FBT001
    bindings = _BINDINGS % _network(client_address(index)) if is_bound else b""
    record = _RECORD % (token.user, acl, TTL_S, bindings)
    return _SET % (_KEYS.token(token.digest), len(record), record, TTL_S)


def _network(address: bytes) -> bytes:
    """Name the /24 of an IPv4 address as records do."""
    return b"%d.%d.%d.0/24" % tuple(address[:3])


def chunks(many: Iterable[T]) -> Iterator[list[T]]:
    """Cut into pieces that one write or one script call can bear."""
    remaining = iter(many)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
