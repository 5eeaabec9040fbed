"""Write a fine-tuned network as a model package, and prove that the package computes the same.

    python training/export.py CHECKPOINT [CHECKPOINT ...] PACKAGE
    python training/export.py --from-nnunet MODEL_FOLDER PACKAGE
    python training/export.py --to-nnssl CHECKPOINT FOLDER

Several checkpoints, such as the folds of a cross-validation, become one package, which averages
what their networks say. The second form converts a trained model of nnU-Net v2 (2d, 3d_fullres or
3d_lowres, one fold or an ensemble) with its preprocessing, so that the result is nnU-Net's. The
third writes no package but a pre-trained residual encoder U-Net as nnssl does, for nnU-Net to
fine-tune.

The package is a MONAI Bundle with models/model.onnx and, with --torchscript, models/model.ts. It is
checked before this command says that it is done: the files against the network in PyTorch, the
metadata by MONAI's verify_metadata. A classifier's package is run by `evaluate.py classify`; Slicer
takes those that segment.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields

from mim.bundle import ExportOptions
from mim.exporting import export_checkpoints
from mim.nnssl_export import export_nnssl
from mim.nnunet_import import CHECKPOINT, export_nnunet
from MIMSegment.Logic.errors import MIMSegmentError


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if bool(arguments.checkpoints) == (arguments.from_nnunet is not None):
        parser.error("give CHECKPOINT and PACKAGE, or --from-nnunet MODEL_FOLDER and PACKAGE")
    if arguments.to_nnssl and len(arguments.checkpoints) != 1:
        parser.error("--to-nnssl takes one CHECKPOINT of pretrain.py")
    if arguments.mirror and (arguments.to_nnssl or arguments.from_nnunet is not None):
        parser.error("--mirror is for checkpoints of finetune.py; models of nnU-Net say it")
    if arguments.to_nnssl and arguments.keep_largest_component:
        parser.error("--keep-largest-component is for packages")
    if arguments.postprocessing and arguments.from_nnunet is None:
        parser.error("--postprocessing goes with --from-nnunet")
    try:
        print(_export(arguments))
    except MIMSegmentError as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 2
    return 0


def _export(arguments: argparse.Namespace) -> str:
    """Write what was asked for; returns the lines to show."""
    if arguments.to_nnssl:
        return export_nnssl(arguments.checkpoints[0], arguments.package)
    options = ExportOptions(**{f.name: getattr(arguments, f.name) for f in fields(ExportOptions)})
    if arguments.from_nnunet is None:
        return export_checkpoints(arguments.checkpoints, arguments.package, options)
    return export_nnunet(
        arguments.from_nnunet, arguments.package, options, arguments.folds, arguments.checkpoint
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoints", nargs="*", metavar="CHECKPOINT", help="last.pt of a run of finetune.py"
    )
    parser.add_argument("package", metavar="PACKAGE", help="folder to write")
    parser.add_argument(
        "--to-nnssl",
        action="store_true",
        help="CHECKPOINT is of pretrain.py: write it as nnssl's checkpoint_final.pth",
    )
    nnunet = parser.add_argument_group("models of nnU-Net v2")
    nnunet.add_argument(
        "--from-nnunet",
        metavar="MODEL_FOLDER",
        help="folder TRAINER__PLANS__CONFIGURATION with plans.json, dataset.json and fold_*",
    )
    nnunet.add_argument(
        "--folds",
        type=lambda text: text.split(","),
        default=[],
        metavar="FOLDS",
        help="folds of the ensemble, for example 0,1,2, or all (default: all numbered folds)",
    )
    nnunet.add_argument(
        "--checkpoint",
        default=CHECKPOINT,
        metavar="NAME",
        help="file in each fold, for example checkpoint_best.pth (default: %(default)s)",
    )
    nnunet.add_argument(
        "--postprocessing",
        metavar="FILE",
        help="postprocessing.json of nnUNetv2_find_best_configuration, to be part of the package",
    )
    parser.add_argument("--id", help="lower-case name (default: the folder's name)")
    parser.add_argument("--title", help="what users read (default: the data set's name)")
    parser.add_argument("--version", default="1.0.0", help="default: %(default)s")
    parser.add_argument("--authors", default="unknown", help="who made the model")
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="NAME",
        help="license of the weights, for example CC-BY-4.0",
    )
    parser.add_argument(
        "--labels", help="labels.csv with SNOMED codes and colors (default: the one of the cache)"
    )
    parser.add_argument(
        "--phantom", action="store_true", help="trained on digital phantoms: users are warned"
    )
    parser.add_argument(
        "--half-weights",
        action="store_true",
        help="round the weights to float16 and store them so: half the size, computed in float32",
    )
    parser.add_argument(
        "--torchscript",
        action="store_true",
        help="write models/model.ts too, for programs made with PyTorch",
    )
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="average the predictions of mirrored windows, along the axes that training mirrored "
        "(spatial.flip): 2, 4 or 8 times as slow",
    )
    parser.add_argument(
        "--keep-largest-component",
        action="append",
        default=[],
        metavar="NAME[+NAME...]",
        help="remove what is apart from the largest connected part of this structure, or of these "
        "together; may be given several times",
    )
    parser.add_argument(
        "--reconstruction",
        metavar="CHECKPOINT",
        help="of pretrain.py: its network goes into the package, to say whether a scan looks like "
        "those that the model knows",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
