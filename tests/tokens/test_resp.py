"""What is written to Redis, held against hiredis."""

from collections.abc import Callable

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from tokens.question import Command
from tokens.store.resp import pack

# hiredis's stub knows tuples of one element only.
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]
_WORDS = st.binary(max_size=8) | st.integers(1020, 1030).map(bytes)
_COMMANDS = st.lists(_WORDS, min_size=1, max_size=5).map(tuple)


@given(st.lists(_COMMANDS, max_size=4))
def test_commands_are_written_as_hiredis_writes_them(commands: list[Command]) -> None:
    """Words of any bytes and of any length: empty, short, and longer than the table knows."""
    assert pack(commands) == b"".join(map(_pack, commands))
