"""The parts that the training commands are built from."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
if _ROOT not in sys.path:  # `python training/x.py` works in a checkout that is not installed
    sys.path.insert(0, _ROOT)
