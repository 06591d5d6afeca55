"""The ceiling: the benchmark's echo agent, which thinks nothing and asks no Redis."""

import os
import socket
import sys

from spoa.bench.load import echo


def main(spop_socket: str, _redis_socket: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(spop_socket)
        listener.listen(512)
        echo.serve(listener, sorted(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main(*sys.argv[1:])
