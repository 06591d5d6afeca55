"""An application served in a thread: it is up inside the block, and gone behind it."""

import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from haproxy.demo import site
from haproxy.demo.serving import serving
from tests.support.webclient import WebClient


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "serving"}


def test_it_answers_and_is_gone(tmp_path: Path) -> None:
    """Inside the block it answers; behind it nobody listens, and no thread is left."""
    with serving(site.create(site.Visits(tmp_path / "log"))) as served:
        assert WebClient(served.address).get().status == 200
    host, _, port = served.address.partition(":")
    with closing(socket.socket()) as client:
        assert client.connect_ex((host, int(port))) != 0
    assert not threads()


def test_open_connections_do_not_hold_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It ends within its patience, without a word, while a WebSocket and a connection are open."""
    with ExitStack() as clients:
        with serving(site.create(site.Visits(tmp_path / "log"))) as served:
            host, _, port = served.address.partition(":")
            clients.enter_context(socket.create_connection((host, int(port))))
            live = clients.enter_context(connect(f"ws://{served.address}/live"))
            live.send("hello")
            assert live.recv() == "hello"
            begin = time.monotonic()
        assert time.monotonic() - begin < 10
        with pytest.raises(ConnectionClosed, match="1012"):
            live.recv()
    assert capfd.readouterr().err == ""


def test_what_does_not_start_is_an_error() -> None:
    """An application whose beginning fails is reported, not waited for."""

    @asynccontextmanager
    async def broken(_: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no luck")
        yield

    with pytest.raises(RuntimeError, match="did not start"), serving(Starlette(lifespan=broken)):
        pass
    assert not threads()
