"""Turn a downloaded public data set into a folder that prepare.py reads.

    python training/public_data.py organs-ct Totalsegmentator_dataset_v201 data/organs_ct
    python training/public_data.py brain-tumor-mr Task01_BrainTumour data/brain_tumor_mr
    python training/public_data.py prostate-lesions-mr prostate158_train data/prostate_lesions_mr

Images stay where they are. docs/real-packages.md says where to get the data sets, under which
licenses, and what comes next.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mim.public_sets import PUBLIC_SETS
from MIMSegment.Logic.errors import MIMSegmentError


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=PUBLIC_SETS, help="which data set")
    parser.add_argument("source", type=Path, help="folder where it was unpacked")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args(argv)
    try:
        count = PUBLIC_SETS[arguments.name](arguments.source, arguments.out)
    except MIMSegmentError as error:
        print(f"public_data: error: {error}", file=sys.stderr)
        return 2
    print(f"Wrote {arguments.out} with {count} labelled cases.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
