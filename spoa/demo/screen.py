"""How the demo looks on a terminal."""

import os
from collections.abc import Mapping
from typing import TextIO

from spoa.demo.walk import Seen, Step

_GREEN, _RED, _DIM, _BOLD = 32, 31, 2, 1
_WHAT_WIDTH = 41
_SEEN_WIDTH = len(str(Seen(200, is_application_reached=False))) + 3


class Screen:
    """Writes to a terminal, with colour if that is one and its owner wants it."""

    def __init__(self, stream: TextIO, environment: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._is_coloured = (
            stream.isatty()
            and not environment.get("NO_COLOR")
            and environment.get("TERM") != "dumb"
        )

    def line(self, text: str = "") -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def cast(self, cast: Mapping[str, object]) -> None:
        """Say who takes part and where."""
        for name, where in cast.items():
            self.line(f"  {name:<16}{where}")

    def heading(self) -> None:
        columns = f"  {'request':<{_WHAT_WIDTH}}{'expected':<{_SEEN_WIDTH}}got"
        self.line(f"\n{self._styled(_DIM, columns)}")

    def step(self, step: Step) -> None:
        good, bad = self._styled(_GREEN, self._mark("\u2713", "ok")), self._mark("\u2717", "WRONG")
        mark = good if step.is_right else self._styled(_RED, bad)
        seen = f"{step.expected!s:<{_SEEN_WIDTH}}{step.got!s:<{_SEEN_WIDTH}}"
        self.line(f"  {step.what:<{_WHAT_WIDTH}}{seen}{mark}")

    def success(self, steps: int, reached: int) -> None:
        all_right = self._styled(_BOLD, f"All {steps} steps went as expected.")
        self.line(f"\n{all_right} The application saw {reached} requests.")

    def failure(self, wrong: int, steps: int, logs: object) -> None:
        self.line(f"\n{self._styled(_RED, f'{wrong} of {steps} steps went wrong.')} Logs: {logs}")

    def browser(self, portal_url: str, ca: object) -> None:
        """Say how to go on in a browser."""
        self.line(f"\n{self._styled(_BOLD, 'Try it in a browser')}: {portal_url}\n")
        self.line("  Log in as alice, or as bob, who is an admin too. For carol nothing opens.")
        self.line(
            "  Your browser will warn of an unknown CA, unless you import this one, which can"
        )
        self.line(f"  vouch for localhost alone: {ca}")

    def terminal(self, issue: str, url: str) -> None:
        """Say how to go on by hand. The token stays out of the list of processes."""
        self.line(f"\n{self._styled(_BOLD, 'Or by hand')}, with bash in another terminal:\n")
        self.line(f"  token=$({issue})")
        self.line(f'  curl -i {url} -H @- <<< "X-KAT: $token"     # once: 200; again: 403')
        self.line(f"  curl -i {url}     # no token: 403")
        self.line("\nCtrl-C ends everything.")

    def _styled(self, code: int, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._is_coloured else text

    def _mark(self, sign: str, word: str) -> str:
        """Choose what the terminal can show."""
        try:
            sign.encode(self._stream.encoding or "ascii")
        except UnicodeEncodeError:
            return word
        return sign
