"""Masked image modelling: the library behind the commands of ``training/``."""

import sys
from pathlib import Path

# A command started from a checkout that is not installed finds MIMSegment too.
sys.path.append(str(Path(__file__).resolve().parents[2]))
