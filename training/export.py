"""Write a fine-tuned network as a model package, and prove that the package computes the same.

    python training/export.py CHECKPOINT PACKAGE

The package is a MONAI Bundle with models/model.onnx. It is checked before this command says that
it is done: the ONNX file against the network in PyTorch, the metadata by MONAI's verify_metadata.
"""

from __future__ import annotations

import argparse
import sys

from mim.exporting import ExportOptions, export_checkpoint
from MIMSegment.Logic.errors import MIMSegmentError


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="last.pt of a run of finetune.py")
    parser.add_argument("package", help="folder to write")
    parser.add_argument("--id", help="lower-case name (default: the folder's name)")
    parser.add_argument("--title", help="what users read (default: the data set's name)")
    parser.add_argument("--version", default="1.0.0", help="default: %(default)s")
    parser.add_argument("--authors", default="unknown", help="who made the model")
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="NAME",
        help="licence of the weights, for example CC-BY-4.0",
    )
    parser.add_argument(
        "--labels", help="labels.csv with SNOMED codes and colors (default: the one of the cache)"
    )
    parser.add_argument(
        "--phantom", action="store_true", help="trained on digital phantoms: users are warned"
    )
    arguments = vars(parser.parse_args(argv))
    try:
        summary = export_checkpoint(
            arguments.pop("checkpoint"), arguments.pop("package"), ExportOptions(**arguments)
        )
    except MIMSegmentError as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 2
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
