"""Turn a folder of scans into a cache that training reads without touching the disk twice.

    python training/prepare.py SCANS CACHE

SCANS is a folder with dataset.json (Medical Decathlon, nnU-Net raw), a BIDS tree, any folder with
NIfTI, NRRD or MHA files or DICOM series, a folder of pictures for each class, a table (.csv) of
images with labels or classes, or a MedMNIST archive (.npz). docs/training.md has the details.
CACHE gets fingerprint.json, plan.json, split.json, cases.json and one fp16 file per image. What
must not be used is named and left out.
"""

from __future__ import annotations

import argparse
import sys

from mim.caching import prepare_dataset
from mim.planning import SCHEMES
from mim.prepare_options import PrepareOptions
from MIMSegment.Logic.errors import MIMSegmentError

MODALITIES = ("CT", "MR", "PT", "US", "XR")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    arguments = vars(_parser().parse_args(argv))
    try:
        summary = prepare_dataset(
            arguments.pop("scans"), arguments.pop("cache"), PrepareOptions(**arguments)
        )
    except MIMSegmentError as error:
        print(f"prepare: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the cache is as it was before", file=sys.stderr)
        return 130
    print(summary)
    return 0


def _modality(text: str) -> str:
    """As DICOM writes it, since that is what a scan is compared with."""
    return {"MRI": "MR", "PET": "PT"}.get(text.upper(), text.upper())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scans", help="folder, table or archive of scans")
    parser.add_argument("cache", help="folder to write (new, or one written by this command)")
    parser.add_argument(
        "--modality",
        type=_modality,
        choices=MODALITIES,
        help="of all inputs, as in DICOM (default: CT for inputs called so, XR for pictures, else "
        "MR)",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="working voxel size in mm (default: median of the data)",
    )
    parser.add_argument(
        "--patch-voxels",
        type=int,
        default=100_000,
        metavar="COUNT",
        help="size of a training crop in voxels (default: %(default)s, for a CPU)",
    )
    parser.add_argument(
        "--picture-size",
        type=int,
        default=224,
        metavar="PIXELS",
        help="longer side to which pictures are scaled (default: %(default)s)",
    )
    parser.add_argument(
        "--inputs",
        nargs="+",
        default=[],
        metavar="SUFFIX",
        help="of a BIDS tree: the images that make up a case, for example T1w T2w FLAIR",
    )
    parser.add_argument(
        "--normalization",
        nargs="+",
        default=[],
        choices=SCHEMES,
        metavar="SCHEME",
        help=f"of all inputs, or one for each: {', '.join(SCHEMES)} (default: ct for CT, else "
        "zscore, or what nnU-Net's name of the channel says)",
    )
    parser.add_argument(
        "--crop-nonzero", action="store_true", help="cut volumes to what is not 0 in any input"
    )
    parser.add_argument(
        "--regions",
        choices=("", "brats"),
        default="",
        help="brats: train on whole tumor, tumor core and enhancing tumor",
    )
    parser.add_argument(
        "--classes-from-folders",
        action="store_true",
        help="folders of volumes are classes, not patients (of pictures they are anyway)",
    )
    parser.add_argument(
        "--test-list",
        metavar="FILE",
        help="text file with a case or subject to a line, to hold back beside the data set's own "
        "test cases",
    )
    parser.add_argument(
        "--pretrain-on-test-images",
        action="store_true",
        help="use the data set's test images without labels, which are left out else",
    )
    parser.add_argument(
        "--splits",
        metavar="FILE",
        help="nnU-Net's splits_final.json: fold=K/N of the later commands are these folds, and "
        "--held-back holds nobody back",
    )
    parser.add_argument(
        "--stages",
        type=int,
        default=4,
        help="resolutions of the network (default: %(default)s, for a CPU)",
    )
    parser.add_argument(
        "--like",
        metavar="CHECKPOINT_OR_CACHE",
        help="take voxel size, crop, strides and kernels from there, so that the network of a "
        "pre-training fits as it is",
    )
    parser.add_argument(
        "--held-back",
        type=float,
        default=0.2,
        metavar="FRACTION",
        help="share of subjects kept for evaluation (default: %(default)s)",
    )
    parser.add_argument(
        "--exclude", nargs="*", default=[], metavar="SUBJECT", help="subjects that no step may see"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: all cores)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
