"""How far the benchmark is, for who waits at a terminal."""

import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Self, TextIO

QUIET_S = 2.0
"""Who waits no longer than that wonders about nothing."""

_REDRAW_S = 0.5
_BAR_CHARS = 20
_SHOWN_CHARS = 60


class Progress:
    """A line that is drawn over, and gone in the end. Nothing at all where nobody looks on.

    Called with a text it tells what is going on; `begin` and `advance` count rounds, if somebody
    does. The time goes on by itself: a round may take longer than patience lasts.
    """

    def __init__(self, screen: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen if screen.isatty() else None
        self._clock = clock
        self._began = clock()
        self._doing = ""
        self._done = self._rounds = 0
        self._is_drawn = False
        self._drawing = Lock()
        self._is_over = Event()
        self._thread = Thread(target=self._tick, daemon=True)

    def __call__(self, doing: str) -> None:
        self._doing = doing
        self.draw()

    def begin(self, rounds: int = 0) -> None:
        """Count anew, to so many rounds. 0: nobody counts."""
        self._done, self._rounds = 0, rounds

    def advance(self) -> None:
        """Count one round as done."""
        self._done += 1

    def draw(self) -> None:
        """Show how it stands, once that is worth a line."""
        with self._drawing:
            elapsed_s = self._clock() - self._began
            if self._screen is None or elapsed_s < QUIET_S or self._is_over.is_set():
                return
            self._is_drawn = True
            self._screen.write(f"\r{self._bar()}{_minutes(elapsed_s)}  {self._shown()}\x1b[K")
            self._screen.flush()

    def __enter__(self) -> Self:
        if self._screen is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._drawing:
            self._is_over.set()
            if self._screen is not None and self._is_drawn:
                self._screen.write("\r\x1b[K")
                self._screen.flush()

    def _tick(self) -> None:
        while not self._is_over.wait(_REDRAW_S):
            self.draw()

    def _bar(self) -> str:
        if not self._rounds:
            return ""
        full = _BAR_CHARS * self._done // self._rounds
        return f"[{'#' * full:.<{_BAR_CHARS}}] {self._done}/{self._rounds}  "

    def _shown(self) -> str:
        # A line that is longer than the terminal would be drawn below itself again and again.
        return self._doing if len(self._doing) <= _SHOWN_CHARS else f"{self._doing[:_SHOWN_CHARS]}."


def _minutes(elapsed_s: float) -> str:
    return f"{int(elapsed_s) // 60}:{int(elapsed_s) % 60:02d}"
