"""``mimsegment`` on the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from importlib import import_module, util
from pathlib import Path

from MIMSegment.Logic import (
    devices,
    gpu_runtime,
    info_command,
    models_command,
    runtime_command,
)
from MIMSegment.Logic.about import NOTICE
from MIMSegment.Logic.crew import multiply_in_one_thread
from MIMSegment.Logic.device_report import AUTOMATIC, DEVICES
from MIMSegment.Logic.errors import DeviceError, MIMSegmentError
from MIMSegment.Logic.progress_line import ProgressLine

_SOME_FAILED = 1  # of the cases; 2 is for a command that could not go on
_WEB = "mimsegment_web.command"  # by name: nothing in Logic depends on a front-end


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 when some cases of a batch failed, or 2 after printing one line
    about what went wrong (after a traceback where nobody foresaw it).

    Requests to end (of a scheduler, of a closed terminal) clean up like Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has one of them
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
                signal.signal(number, _stop)
    multiply_in_one_thread()
    with contextlib.suppress(AttributeError, ValueError):  # names that a log's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return arguments.run(arguments) or 0
    except MIMSegmentError as error:
        print(f"mimsegment: error: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print("mimsegment: error: Not enough memory; close other programs.", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mimsegment: error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except Exception as error:
        traceback.print_exc()
        print(
            f"mimsegment: error: It failed for an unforeseen reason ({type(error).__name__}); "
            "please send the lines above to the developers, without names of patients.",
            file=sys.stderr,
        )
        return 2
    except (KeyboardInterrupt, _Terminated) as error:
        with contextlib.suppress(OSError):  # of a terminal that is closed
            print("mimsegment: stopped.", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)


class _Terminated(BaseException):
    """The system asks this process to end, by the signal ``number``."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def _stop(number: int, frame) -> None:
    raise _Terminated(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mimsegment",
        description="Segment medical images with MIM Segment packages.",
        epilog=NOTICE,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    segment = commands.add_parser(
        "segment",
        help="segment one study",
        description="Segment one study on its own grid.",
        epilog=NOTICE,
    )
    _add_inputs(segment)
    segment.add_argument(
        "--model", "-m", required=True, help="model package: a folder, a zip, or an id"
    )
    segment.add_argument(
        "--output",
        "-o",
        required=True,
        metavar="OUT",
        help="result: .seg.nrrd (Slicer segmentation), .nrrd, .nii.gz or .mha (label image)",
    )
    _add_inference_options(segment)
    segment.add_argument("--quiet", "-q", action="store_true", help="no progress")
    segment.set_defaults(run=_segment)
    _add_batch(commands)
    _add_scene(commands)
    models_command.add_arguments(commands)
    devices.add_arguments(commands)
    runtime_command.add_arguments(commands)
    _add_web(commands)
    info_command.add_arguments(commands)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image file (NIfTI, NRRD, MHA) or DICOM folder; several for a model with several "
        "inputs, in any order, or NAME=INPUT to say which is which",
    )
    _add_series(parser)


def _add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="[NAME=]WHICH",
        help="of a folder with several series: its number, the beginning of its UID, or a part of "
        "its description; NAME= says for which input; `mimsegment info FOLDER` lists them",
    )


def _add_inference_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", *DEVICES),
        help=f"default: the first that works of {', '.join(AUTOMATIC)}",
    )
    parser.add_argument("--precision", help="float32, bfloat16 or float16 (default: the fastest)")
    parser.add_argument("--threads", type=_count, help="CPU threads (default: all)")
    parser.add_argument(
        "--no-mirroring",
        action="store_true",
        help="leave out the mirrored predictions that some models ask for: faster",
    )
    parser.add_argument(
        "--structures", nargs="+", type=int, metavar="LABEL", help="keep only these label values"
    )
    parser.add_argument(
        "--trust-torchscript",
        action="store_true",
        help="run a TorchScript model, which is a program, because you know where it comes from",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _options(arguments: argparse.Namespace):
    from MIMSegment.Logic.inference import InferenceOptions

    return InferenceOptions(
        arguments.device,
        arguments.precision,
        arguments.threads,
        arguments.trust_torchscript,
        tuple(arguments.structures) if arguments.structures else None,
        not arguments.no_mirroring,
    )


def _add_batch(commands) -> None:
    batch = commands.add_parser(
        "batch",
        help="segment a cohort",
        description="Segment every case of a folder (files or sub-folders) or of a CSV table with "
        "the columns case and image, or case and the model's inputs. Run again to go on. "
        "Ends with status 1 when cases failed.",
        epilog=NOTICE,
    )
    batch.add_argument("cases", metavar="FOLDER_OR_CSV", help="the cohort")
    batch.add_argument("--model", "-m", required=True, help="as for `segment`")
    batch.add_argument("--output", "-o", required=True, metavar="FOLDER", help="folder to write")
    batch.add_argument(
        "--ending", default=".seg.nrrd", help="of the results (default: %(default)s)"
    )
    _add_series(batch)
    _add_inference_options(batch)
    batch.set_defaults(run=_batch)


def _add_scene(commands) -> None:
    scene = commands.add_parser(
        "scene",
        help="put a study and its result into a Slicer scene",
        description="Write a Slicer scene (.mrb) of a study and its segmentation, and pictures. "
        "Needs slicer-core (pip install 'mimsegment[web]').",
    )
    _add_inputs(scene)
    scene.add_argument("--segmentation", "-s", required=True, help="result of `segment`")
    scene.add_argument("--model", "-m", required=True, help="model package that made it")
    scene.add_argument("--output", "-o", required=True, metavar="SCENE.mrb", help="scene to write")
    scene.add_argument("--pictures", metavar="FOLDER", help="folder for slices.png, surfaces.png")
    scene.set_defaults(run=_scene)


def _add_web(commands) -> None:
    """The browser's front-end brings its own options, if it is installed."""
    web = commands.add_parser(
        "web",
        help="the whole workflow in a browser, on this computer",
        description="Segment, review and export in a browser. Nothing leaves this computer.",
        epilog=NOTICE,
    )
    if util.find_spec(_WEB.partition(".")[0]) is not None:
        command = import_module(_WEB)
        command.add_options(web)
        web.set_defaults(run=command.run)
    else:
        web.add_argument("study", nargs="*")
        web.set_defaults(run=_no_web)


def _no_web(arguments: argparse.Namespace) -> None:
    raise DeviceError("The browser's front-end is not installed: pip install 'mimsegment[web]'.")


def _segment(arguments: argparse.Namespace) -> None:
    gpu_runtime.activate(*gpu_runtime.runtimes_for(arguments.device))
    from MIMSegment.Logic.inference import run_package
    from MIMSegment.Logic.input_guard import keep_inputs
    from MIMSegment.Logic.inputs import read_package_and_study
    from MIMSegment.Logic.labels import wanted_labels
    from MIMSegment.Logic.segmentation_file import check_output_path, write_segmentation

    output, options = check_output_path(arguments.output), _options(arguments)
    keep_inputs([output], arguments.inputs)
    package, study = read_package_and_study(
        models_command.find_package(arguments.model), arguments.inputs, arguments.series
    )
    for line in study.explanation:
        print(line)
    for warning in study.volume.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    _print_findings(study.findings)
    began = time.perf_counter()
    line = ProgressLine()

    def show(done: int, total: int) -> None:
        line.show(done / total, f"window {done}/{total}")

    try:
        progress = None if arguments.quiet else show
        result = run_package(study.volume, package, options, print, progress)
    finally:
        line.end()
    write_segmentation(result, package.labels, output, f"{package.id} {package.version}")
    _print_findings(result.findings)
    _print_volumes(result.volumes_ml(), wanted_labels(package.labels, options.wanted))
    print(f"Wrote {output} in {time.perf_counter() - began:.1f} s. {NOTICE}")


def _print_findings(findings) -> None:
    for finding in findings:
        print(f"{finding.severity}: {finding}", file=sys.stderr)


def _batch(arguments: argparse.Namespace) -> int:
    from MIMSegment.Logic.batch import run_batch
    from MIMSegment.Logic.cohort import FAILURES, VOLUMES, find_cases
    from MIMSegment.Logic.package import load_package
    from MIMSegment.Logic.segmentation_file import check_ending

    package = load_package(models_command.find_package(arguments.model))
    folder = Path(arguments.output)
    cases = find_cases(arguments.cases, package.spec, folder)
    check_ending(f"case{arguments.ending}")
    lines = _Lines()
    try:
        done, failed, skipped = run_batch(
            cases,
            package,
            folder,
            _options(arguments),
            arguments.ending,
            lines.say,
            arguments.series,
            lines.show,
        )
    finally:
        lines.end()
    print(f"{done} done, {failed} failed, {skipped} were finished before. {NOTICE}")
    print(f"Wrote {folder / VOLUMES}" + (f" and {folder / FAILURES}" if failed else ""))
    return _SOME_FAILED if failed else 0


class _Lines:
    """What a batch tells: lines on stdout, and on a terminal the progress below them."""

    def __init__(self):
        self._progress = ProgressLine()

    def say(self, sentence: str) -> None:
        self._progress.clear()
        print(sentence, flush=True)

    def show(self, number: int, count: int, job) -> None:
        if not sys.stderr.isatty():  # the lines of all windows of all cases would fill a log
            return
        share = job.done / job.total if job.total else 0.0
        text = f"window {job.done}/{job.total}" if job.total else job.message
        self._progress.show(share, f"case {number} of {count}: {text}")

    def end(self) -> None:
        self._progress.clear()


def _scene(arguments: argparse.Namespace) -> None:
    from MIMSegment.Logic.input_guard import keep_inputs
    from MIMSegment.Logic.inputs import read_inputs
    from MIMSegment.Logic.package import load_package
    from MIMSegment.Logic.scene_summary import write_scene
    from MIMSegment.Logic.volume import read_volume

    keep_inputs([Path(arguments.output)], [*arguments.inputs, arguments.segmentation])
    package = load_package(models_command.find_package(arguments.model))
    volume, explanation = read_inputs(arguments.inputs, package.spec, arguments.series)
    print("\n".join(explanation))
    written = write_scene(
        volume,
        read_volume(arguments.segmentation),
        package,
        Path(arguments.output),
        Path(arguments.pictures) if arguments.pictures else None,
    )
    print("Wrote " + ", ".join(map(str, written)))


def _print_volumes(volumes: dict[int, float], labels) -> None:
    width = max(len(label.name) for label in labels)
    for label in labels:
        print(f"{label.value:4d}  {label.name:{width}}  {volumes.get(label.value, 0.0):10.2f} mL")


if __name__ == "__main__":
    sys.exit(main())
