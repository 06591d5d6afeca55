"""The words between policy and connections."""

import pytest

from tokens.question import without_arguments


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ERR unknown command 'AUTH', with args beginning with: 'hunter2' ", "unknown command"),
        ("ERR unknown command `AUTH`, with args beginning with: `hunter2`, ", "unknown command"),
        ("NOPERM this user has no permissions", "NOPERM this user has no permissions"),
    ],
)
def test_what_redis_echoes_is_left_out(said: str, told: str) -> None:
    """Of an error all is told but the arguments, which may be a password."""
    words = without_arguments(Exception(said))
    assert told in words
    assert "hunter2" not in words
