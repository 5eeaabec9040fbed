"""Progress of a command on stderr."""

from __future__ import annotations

import sys
import time

_STEP = 0.05  # of the whole, after which a line is written where there is no terminal
_REDRAW_SECONDS = 0.1


class ProgressLine:
    """One line that is redrawn on a terminal, else a line for every twentieth."""

    def __init__(self):
        self._told, self._drawn = -1, 0.0

    def show(self, share: float, text: str) -> None:
        """``text`` says how far it is; ``share`` is that as 0..1."""
        if sys.stderr.isatty():
            if time.monotonic() - self._drawn >= _REDRAW_SECONDS or share >= 1:
                self._drawn = time.monotonic()
                print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif int(share / _STEP) > self._told:
            self._told = int(share / _STEP)
            print(text, file=sys.stderr)

    def clear(self) -> None:
        """Take the line off the terminal, so that something else can be printed in its place."""
        if self._drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._drawn = 0.0

    def end(self) -> None:
        """Leave the line as it is."""
        if self._drawn:
            print(file=sys.stderr)
            self._drawn = 0.0
