"""The page's server as a user starts it: a process of its own, found by the line it prints."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEB = ("MIMSegment.Logic.cli", "web", "--no-browser")


class PageServer:
    """``mimsegment web`` with these arguments; a ``with`` statement ends it by Ctrl-C.

    ``command`` is another module that serves the page, with its first arguments.
    """

    def __init__(self, output: Path, *arguments: str, command: Sequence[str] = WEB):
        paths = os.pathsep.join([str(ROOT), str(ROOT / "web"), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, "--output", str(output), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=output,
            env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
        self.lines = []
        self.url = ""
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"http://\S+", line):
                self.url = found[0]
                return
        raise AssertionError("".join(self.lines))

    @property
    def base(self) -> str:
        """The address without its token."""
        return self.url.partition("?")[0]

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ctrl-C, or another signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()
