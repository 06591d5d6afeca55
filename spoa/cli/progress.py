"""How far a search is, for who waits at a terminal."""

import time
from collections.abc import Callable
from typing import Self, TextIO

QUIET_S = 2.0
"""Who waits no longer than that wonders about nothing."""

_REDRAW_S = 0.1


class Progress:
    """A line that is drawn over, and gone in the end. Nothing at all where nobody looks on."""

    def __init__(self, screen: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen if screen is not None and screen.isatty() else None
        self._clock = clock
        self._draw_at = clock() + QUIET_S
        self._is_drawn = False

    def __call__(self, looked: int, total: int) -> None:
        if self._screen is None or self._clock() < self._draw_at:
            return
        self._draw_at = self._clock() + _REDRAW_S
        self._is_drawn = True
        of_how_many = f" of {total:,}" if total else ""
        self._screen.write(f"\rlooked at {looked:,}{of_how_many} keys\x1b[K")
        self._screen.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None and self._is_drawn:
            self._screen.write("\r\x1b[K")
            self._screen.flush()
