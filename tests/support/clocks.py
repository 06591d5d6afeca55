"""Programs whose clock is wrong, by libfaketime; all else on this machine keeps the right time."""

from pathlib import Path

from tests.support.redis import system_binary

_PLACES = ("usr/lib*/*/faketime", "usr/lib*/faketime")

# jemalloc asks for the time while it starts, libfaketime asks for memory while it is asked for the
# time: together they hang. With this library of the C library's own before it, nobody asks
# jemalloc for memory.
_BESIDE_JEMALLOC = "libc_malloc_debug.so.0"


def faketime(offset: str) -> dict[str, str]:
    """Return the environment of a program whose clock is wrong by `+5s` or `-800d`.

    Timers stay right. For a program without jemalloc.
    """
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def redis_that_is_behind(place: Path, seconds: int) -> Path:
    """Write a launcher of redis-server for a clock that is so far behind; return its path."""
    launcher = place / "redis-server"
    launcher.write_text(
        "#!/bin/sh\n"
        # Timers stay right: only what the server says, and counts by, is wrong.
        f"exec env LD_PRELOAD='{_library()} {_BESIDE_JEMALLOC}' FAKETIME=-{seconds}s"
        f' FAKETIME_DONT_FAKE_MONOTONIC=1 "{system_binary()}" "$@"\n'
    )
    launcher.chmod(0o755)
    return launcher


def _library() -> Path:
    """Find it where scripts/prepare looks for it, too."""
    found = [one for place in _PLACES for one in Path("/").glob(f"{place}/libfaketime.so.1")]
    assert found, "the tests need libfaketime: scripts/prepare test installs it"
    return found[0]
