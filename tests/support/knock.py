"""Connect from an address, say a line, and print the line that comes back.

    python tests/support/knock.py SOURCE ADDRESS PORT LINE

After the line `stay` it waits until the other side ends the connection, and prints `ended`.
"""

import socket
import sys
from contextlib import suppress

_PATIENCE_S = 10


def main(source: str, address: str, port: str, line: str) -> None:
    with socket.create_connection((address, int(port)), _PATIENCE_S, (source, 0)) as client:
        client.sendall(f"{line}\n".encode())
        with client.makefile() as answers:
            sys.stdout.write(answers.readline())
            sys.stdout.flush()
            if line == "stay":
                client.settimeout(None)
                with suppress(ConnectionError):
                    answers.readline()
                sys.stdout.write("ended\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
