"""The obvious design: asyncio streams, a task per NOTIFY, a GETDEL of redis.asyncio in each.

What one writes on a first afternoon with SPOE.txt, and writes well: frames are answered as Redis
replies, none waits for another, and 20 and more may be in flight on a connection. It stands on its
own, as a user would write it, and so imports nothing of ours.
"""

import asyncio
import struct
import sys
from functools import partial

import uvloop
from redis.asyncio import Redis

# SPOE.txt 3.2: types of frames; 3.1: types of data; 3.4: actions.
HAPROXY_HELLO, NOTIFY = 1, 3
AGENT_HELLO, AGENT_DISCONNECT, ACK = 101, 102, 103
NULL, BOOL, INT32, UINT32, INT64, UINT64, IPV4, IPV6, STRING, BINARY = range(10)
SET_VAR, TRANSACTION = 1, 2
FIN, TRUE = 1, 0x10
MAX_FRAME_BYTES = 16380

# redis.asyncio has a connection for each command under way, and raises MaxConnectionsError beyond
# 100 unless told otherwise. Its BlockingConnectionPool costs as much and makes the tail longer.
REDIS_CONNECTIONS = 1000

Arguments = dict[bytes, bytes | int | bool | None]


async def main(spop_socket: str, redis_socket: str) -> None:
    store = Redis(unix_socket_path=redis_socket, max_connections=REDIS_CONNECTIONS)
    server = await asyncio.start_unix_server(partial(serve, store), spop_socket, backlog=512)
    await server.serve_forever()


async def serve(store: Redis, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read one connection's frames; each NOTIFY gets a task, and its ACK when that is done."""
    tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them weakly only
    try:
        while True:
            (size,) = struct.unpack(">I", await reader.readexactly(4))
            if size > MAX_FRAME_BYTES:
                break
            frame = await reader.readexactly(size)
            if frame[0] == NOTIFY:
                task = asyncio.create_task(answer(store, frame, writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            elif frame[0] == HAPROXY_HELLO:
                writer.write(HELLO)
            else:
                writer.write(GOODBYE)
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # HAProxy closes an idle connection without a word
    finally:
        writer.close()


async def answer(store: Redis, frame: bytes, writer: asyncio.StreamWriter) -> None:
    """Consume the token of one NOTIFY and write its ACK."""
    _stream_id, pos = read_varint(frame, 5)
    _frame_id, pos = read_varint(frame, pos)
    token = read_message(frame, pos).get(b"token")
    found = await store.getdel(b"token:%b" % token) if isinstance(token, bytes) else None
    user = found if isinstance(found, bytes) else b""
    actions = (
        set_var(b"allow", bytes((BOOL | (TRUE if user else 0),)))
        + set_var(b"user", string(user))
        + set_var(b"reason", string(b"ok" if user else b"unknown"))
    )
    writer.write(pack(ACK, frame[5:pos] + actions))


def read_message(frame: bytes, pos: int) -> Arguments:
    """Decode the arguments of the first message; we are sent no other."""
    _name, pos = read_string(frame, pos)
    count = frame[pos]
    pos += 1
    arguments: Arguments = {}
    for _ in range(count):
        name, pos = read_string(frame, pos)
        arguments[name], pos = read_value(frame, pos)
    return arguments


def read_value(frame: bytes, pos: int) -> tuple[bytes | int | bool | None, int]:
    flags, kind, pos = frame[pos] & 0xF0, frame[pos] & 0x0F, pos + 1
    if kind == NULL:
        return None, pos
    if kind == BOOL:
        return flags == TRUE, pos
    if kind in (STRING, BINARY):
        return read_string(frame, pos)
    if kind in (IPV4, IPV6):
        size = 4 if kind == IPV4 else 16
        return frame[pos : pos + size], pos + size
    return read_varint(frame, pos)


def read_string(frame: bytes, pos: int) -> tuple[bytes, int]:
    size, pos = read_varint(frame, pos)
    return frame[pos : pos + size], pos + size


def read_varint(frame: bytes, pos: int) -> tuple[int, int]:
    value, pos = frame[pos], pos + 1
    if value < 240:
        return value, pos
    shift = 4
    while True:
        byte, pos = frame[pos], pos + 1
        value += byte << shift
        if byte < 128:
            return value, pos
        shift += 7


def varint(value: int) -> bytes:
    if value < 240:
        return bytes((value,))
    encoded, value = [value & 0xFF | 240], (value - 240) >> 4
    while value >= 128:
        encoded.append(value & 0xFF | 128)
        value = (value - 128) >> 7
    return bytes([*encoded, value])


def plain(text: bytes) -> bytes:
    return varint(len(text)) + text


def string(text: bytes) -> bytes:
    return bytes((STRING,)) + plain(text)


def set_var(name: bytes, value: bytes) -> bytes:
    return bytes((SET_VAR, 3, TRANSACTION)) + plain(name) + value


def pack(kind: int, rest: bytes) -> bytes:
    return struct.pack(">IBI", 5 + len(rest), kind, FIN) + rest


HELLO = pack(
    AGENT_HELLO,
    b"\0\0"
    + (plain(b"version") + string(b"2.0"))
    + (plain(b"max-frame-size") + bytes((UINT32,)) + varint(MAX_FRAME_BYTES))
    + (plain(b"capabilities") + string(b"pipelining")),
)
GOODBYE = pack(
    AGENT_DISCONNECT,
    b"\0\0"
    + (plain(b"status-code") + bytes((UINT32, 0)))
    + (plain(b"message") + string(b"goodbye")),
)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
