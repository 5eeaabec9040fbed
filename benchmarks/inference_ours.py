"""``mimsegment`` as a user calls it, and how long the network itself was at work.

    python benchmarks/inference_ours.py TIMES.json segment IMAGE --model PACKAGE -o OUT ...

TIMES.json gets ``network_seconds`` and ``windows``; what is not the network is start, reading,
resampling, accumulation, labels and writing.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MIMSegment.Logic import cli
from MIMSegment.Logic.session import BaseSession


def main() -> int:
    times, run = [], BaseSession.__call__

    def timed(session, tile):
        began = time.perf_counter()
        logits = run(session, tile)
        times.append(time.perf_counter() - began)
        return logits

    BaseSession.__call__ = timed
    target, *arguments = sys.argv[1:]
    code = cli.main(arguments)
    result = {"network_seconds": sum(times), "windows": len(times)}
    Path(target).write_text(json.dumps(result))
    return code


if __name__ == "__main__":
    sys.exit(main())
