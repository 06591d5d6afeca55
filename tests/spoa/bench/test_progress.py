import io

import pytest

from spoa.bench.progress import QUIET_S, Progress


class Screen(io.StringIO):
    """A terminal, or a file."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    @property
    def line(self) -> str:
        """What stands there now."""
        return self.getvalue().rpartition("\r")[2].removesuffix("\x1b[K")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nobody_is_told_about_a_moment(clock: Clock) -> None:
    """What takes two seconds needs no line, and leaves none."""
    screen = Screen(is_terminal=True)
    with Progress(screen, clock) as progress:
        clock.now = QUIET_S - 0.1
        progress("consume")
    assert not screen.getvalue()


def test_a_file_is_told_nothing(clock: Clock) -> None:
    """Only on a terminal is there somebody who waits."""
    screen = Screen(is_terminal=False)
    with Progress(screen, clock) as progress:
        clock.now = 100
        progress.begin(2)
        progress("consume")
        progress.draw()
    assert not screen.getvalue()


def test_rounds_time_and_doing_are_shown(clock: Clock) -> None:
    """The bar is as full as rounds are done; the time is since the beginning of all."""
    screen = Screen(is_terminal=True)
    with Progress(screen, clock) as progress:
        progress.begin(4)
        progress("consume")
        clock.now = 83
        progress.draw()
        assert screen.line == "[....................] 0/4  1:23  consume"
        progress.advance()
        progress("session")
        assert screen.line == "[#####...............] 1/4  1:23  session"
        progress.begin()
        progress("haproxy: starting")
        assert screen.line == "1:23  haproxy: starting"
        progress("x" * 500)
        assert len(screen.line) < 80
    assert screen.line == ""


def test_the_line_goes_on_by_itself() -> None:
    """Who is told nothing new still sees the time go by."""
    screen = Screen(is_terminal=True)
    times = iter([0.0, *(10.0 * n for n in range(1, 1000))])
    progress = Progress(screen, lambda: next(times))
    progress("consume")
    with progress:
        while "0:20  consume" not in screen.getvalue():
            pass
