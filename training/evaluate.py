"""Measure a model package on labelled scans, and compare measured models.

    python training/evaluate.py segment PACKAGE DATA -o OUT [--protocol btcv-13]
    python training/evaluate.py classify PACKAGE DATA -o OUT
    python training/evaluate.py compare A/cases.csv B/cases.csv
    python training/evaluate.py rank SETS.toml

`segment` runs the package as the module does, on each image's own grid, and writes OUT/cases.csv
(Dice, surface Dice, HD95, volume error of every case and structure) and OUT/summary.json with 95 %
intervals over subjects; `--lesions NAME` adds detection of that structure's lesions as objects.
Cases that the package has learnt from are left out, but for `--with-training`; `--save-predictions`
writes each result to OUT/predictions.
`classify` does the same with a classifier: AUC with DeLong's interval, sensitivity, probabilities.
`compare` bootstraps the paired difference B - A over subjects; of tables of `classify` that of the
AUC of each class, with DeLong's p. `rank` averages the methods' ranks over data sets of `segment`;
SETS.toml names a folder with METHOD/cases.csv for each (`name = "folder"`) under [development], on
which methods may be chosen, and under [test], which are ranked apart. Without a file: rank
SET1=DIR1 SET2=DIR2 ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mim.case_table import (
    METRICS,
    case_means,
    check_same_references,
    format_summary,
    of_shared_structures,
    read_cases,
    summarize_cases,
    with_credit,
    write_cases,
)
from mim.class_comparison import compare_classes, read_classes
from mim.class_results import class_table
from mim.classifier_evaluation import evaluate_classifier, write_classes
from mim.classifier_package import load_classifier
from mim.comparison import NO_HARM, mean_ranks, paired_difference
from mim.data_sets import data_sets
from mim.package_evaluation import (
    EvaluationOptions,
    detection_figures,
    evaluate_package,
    saving,
)
from mim.protocols import PROTOCOLS, find_protocol
from mim.seen import warn_of_training_images
from mim.statistics import few_subjects, span
from mim.structures import Structures
from MIMSegment.Logic.device_report import DEVICES
from MIMSegment.Logic.errors import InputError, MIMSegmentError
from MIMSegment.Logic.files import make_folder, write_json
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.store import PackageStore

_HIGHER_IS_BETTER = {"dice": True, "nsd": True, "hd95": False}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, 1 when cases failed, or 2 after one line about what went wrong."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except MIMSegmentError as error:
        print(f"evaluate: error: {error}", file=sys.stderr)
        return 2


def _segment(arguments: argparse.Namespace) -> int:
    package = load_package(PackageStore().find(arguments.package))
    protocol = find_protocol(arguments.protocol) if arguments.protocol else None
    options = EvaluationOptions(
        protocol,
        tuple(arguments.cases),
        arguments.tolerance,
        arguments.lesions,
        arguments.with_training,
        InferenceOptions(arguments.device, arguments.precision),
    )
    predictions = arguments.output / "predictions"
    saved = {"save": saving(predictions, package)} if arguments.save_predictions else {}
    measured = evaluate_package(package, arguments.data, options, **saved)
    make_folder(arguments.output)
    table = arguments.output / "cases.csv"
    write_cases(table, measured.cases)
    summary = {
        "package": f"{package.id} {package.version}",
        "data": str(arguments.data),
        "protocol": arguments.protocol or "every labelled case, every structure of the package",
        "surface_tolerance_mm": arguments.tolerance,
        **measured.structures.summary(),
        **measured.learnt.summary(),
        **summarize_cases(read_cases(table)),
    }
    if measured.missing:
        summary["protocol_lacks_cases"] = list(measured.missing)
    if measured.failed:
        summary["failed"] = measured.failed
    if arguments.lesions:
        summary["detection"] = detection_figures(measured.detections)
    write_json(arguments.output / "summary.json", summary)
    print(format_summary(summary))
    for name, value in summary.get("detection", {}).items():
        print(f"{name}: {value}")
    print(f"Wrote {table} and summary.json" + (f", {predictions}" if saved else ""))
    _say_what_is_left_out(measured.structures)
    if missing := ", ".join(map(str, measured.missing)):
        print(
            f"evaluate: warning: of the protocol's cases these are not there: {missing}. The "
            "figures cannot be compared with published ones.",
            file=sys.stderr,
        )
    warn_of_training_images(summary)
    for case, reason in measured.failed.items():
        print(f"evaluate: {case} failed and is not in the figures: {reason}", file=sys.stderr)
    return 1 if measured.failed else 0


def _say_what_is_left_out(structures: Structures) -> None:
    for side, names in (
        ("package", structures.only_in_package),
        ("data set", structures.only_in_data),
    ):
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            listed = ", ".join(names[:8]) + more
            print(f"evaluate: not measured, only the {side} has: {listed}.", file=sys.stderr)
    if absent := ", ".join(structures.absent):
        print(f"evaluate: the package lacks what the protocol measures: {absent}.", file=sys.stderr)


def _classify(arguments: argparse.Namespace) -> None:
    package = load_classifier(arguments.package)
    summary = evaluate_classifier(
        package, arguments.data, arguments.cases, arguments.device, arguments.with_training
    )
    write_classes(arguments.output, summary)
    print(class_table(summary))
    print(f"Wrote {arguments.output / 'cases.csv'} and summary.json")
    warn_of_training_images(summary)


def _compare(arguments: argparse.Namespace) -> None:
    classes = read_classes(arguments.a), read_classes(arguments.b)
    if all(classes):
        _say_unpaired(*classes)
        return _compare_classes(*classes)
    tables = {str(path): read_cases(path) for path in (arguments.a, arguments.b)}
    a, b = _shared(tables).values()
    _say_unpaired(*({row["case"]: row for row in rows} for rows in (a, b)))
    for metric in METRICS[:3]:
        means_a, subjects = case_means(a, metric)
        means_b, _ = case_means(b, metric)
        sign = 1 if _HIGHER_IS_BETTER[metric] else -1
        gain = paired_difference(
            {case: sign * value for case, value in means_a.items()},
            {case: sign * value for case, value in means_b.items()},
            subjects,
        )
        margin = NO_HARM if metric == "dice" else 0.0
        low, high = sorted((sign * gain.low, sign * gain.high))
        print(
            f"{metric}: B - A = {sign * gain.mean:+.4f} (95 % interval {span(low, high, '+.4f')}), "
            f"{gain.cases} cases of {gain.subjects} subjects: B is {gain.verdict(margin)}"
        )
    if few := few_subjects(gain.subjects):
        print(few)


def _shared(tables: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The rows of the structures that all have, `with_credit`; says which others are left out.

    Raises InputError for tables of other data.
    """
    kept, left_out = of_shared_structures(tables)
    if left_out:
        print(f"Left out, as not all of {', '.join(tables)} have them: {', '.join(left_out)}.")
    check_same_references(kept)
    return with_credit(kept)


def _say_unpaired(a: Mapping[str, dict], b: Mapping[str, dict]) -> None:
    """Name the cases that only one has: those that failed in the other may be the hard ones."""
    if unpaired := sorted(a.keys() ^ b.keys()):
        more = ", ..." if len(unpaired) > 5 else ""
        print(
            f"Left out, as only one of the two has them: {counted(len(unpaired), 'case')} "
            f"({', '.join(unpaired[:5])}{more})."
        )


def _compare_classes(a: dict, b: dict) -> None:
    for name, (p, area, gain) in compare_classes(a, b).items():
        print(
            f"{name}: AUC {area:.3f}, B - A = {gain.mean:+.4f} (95 % interval "
            f"{span(gain.low, gain.high, '+.4f')}, DeLong's p {p:.3g}), {gain.cases} cases of "
            f"{gain.subjects} subjects: B is {gain.verdict(NO_HARM)}"
        )


def _rank(arguments: argparse.Namespace) -> None:
    for title, folders in data_sets(arguments.sets).items():
        scores, subjects = {}, {}
        for name, folder in folders.items():
            tables = sorted(folder.glob("*/cases.csv"))
            if not tables:
                raise InputError(f"{folder} has no METHOD/cases.csv.")
            rows = _shared({t.parent.name: read_cases(t) for t in tables})
            means = {method: case_means(own, "dice") for method, own in rows.items()}
            scores[name] = {method: found for method, (found, _) in means.items()}
            subjects[name] = next(iter(means.values()))[1]
        ranks = mean_ranks(scores, subjects)
        print(f"Mean rank by Dice over {len(scores)} {title} (95 % interval), 1 is best:")
        for method, rank in sorted(ranks.items(), key=lambda item: item[1].mean):
            print(f"  {rank.mean:.2f} ({span(rank.low, rank.high, '.2f')})  {method}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    with_training = {
        "action": "store_true",
        "help": "measure cases that the package has learnt from as well",
    }
    device = {
        "default": "auto",
        "choices": ("auto", *DEVICES),
        "help": "see `mimsegment devices` (default: auto)",
    }
    segment = commands.add_parser("segment", help="measure a package on labelled scans")
    segment.add_argument("package", help="package folder, zip or id")
    segment.add_argument("data", type=Path, help="labelled data set, as for prepare.py")
    segment.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write"
    )
    segment.add_argument("--protocol", help=f"one of {', '.join(PROTOCOLS)}")
    segment.add_argument("--cases", nargs="+", default=(), help="names of the cases to measure")
    segment.add_argument(
        "--tolerance", type=float, default=2.0, help="of the surface Dice in mm (default: 2)"
    )
    segment.add_argument("--lesions", metavar="NAME", help="structure to measure as objects")
    segment.add_argument("--with-training", **with_training)
    segment.add_argument(
        "--save-predictions",
        action="store_true",
        help="write each result to OUT/predictions, for Slicer",
    )
    segment.add_argument("--device", **device)
    segment.add_argument("--precision", help="float32, bfloat16 or float16 (default: the fastest)")
    segment.set_defaults(run=_segment)
    classify = commands.add_parser("classify", help="measure a classifier on images with classes")
    classify.add_argument("package", help="package folder of a classifier")
    classify.add_argument("data", type=Path, help="data set with classes, as for prepare.py")
    classify.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write"
    )
    classify.add_argument("--cases", nargs="+", default=(), help="names of the cases to measure")
    classify.add_argument("--with-training", **with_training)
    classify.add_argument("--device", **device)
    classify.set_defaults(run=_classify)
    compare = commands.add_parser("compare", help="paired difference of two models")
    compare.add_argument("a", type=Path, help="cases.csv of the first")
    compare.add_argument("b", type=Path, help="cases.csv of the second")
    compare.set_defaults(run=_compare)
    rank = commands.add_parser("rank", help="mean rank over data sets")
    rank.add_argument("sets", nargs="+", metavar="SETS", help="SETS.toml, or NAME=FOLDER ...")
    rank.set_defaults(run=_rank)
    return parser


if __name__ == "__main__":
    sys.exit(main())
