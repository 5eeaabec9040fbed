"""``mimsegment runtime``: installing, listing and removing private runtimes."""

from __future__ import annotations

import argparse
import sys

from MIMSegment.Logic import gpu_runtime
from MIMSegment.Logic.diskspace import human_size

_LIBRARIES = ("onnxruntime-gpu", "onnxruntime-directml", "openvino")


def add_arguments(commands) -> None:
    """Add ``runtime install|list|remove`` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "runtime",
        help="install, list and remove runtimes for GPUs",
        description="Runtimes for GPUs, and OpenVINO, lie in folders of their own and change "
        "nothing in this Python. Without one, ONNX Runtime on the CPU is used.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("install", help="download and install a runtime")
    action.add_argument(
        "device", nargs="?", choices=("auto", *gpu_runtime.DEVICES), default="auto",
        help="auto (default) is what fits the GPU of this computer",
    )  # fmt: skip
    action.set_defaults(run=_install_command)
    actions.add_parser("list", help="show what is installed, where, and its size").set_defaults(
        run=_list_command
    )
    action = actions.add_parser("remove", help="remove an installed runtime")
    action.add_argument("name", help="as shown by list")
    action.set_defaults(run=_remove_command)


def _install_command(arguments: argparse.Namespace) -> None:
    from MIMSegment.Logic.devices import print_report, probe

    driver = gpu_runtime.driver_version()
    if arguments.device == "auto":
        wanted = gpu_runtime.plan(driver)
    else:
        wanted = gpu_runtime.requirement(arguments.device, driver)
    folder = gpu_runtime.runtimes_folder() / wanted.name
    print(
        f"{wanted.explanation} Downloading about {human_size(wanted.download_bytes)}; it will take "
        f"about {human_size(wanted.installed_bytes)} in {folder}."
    )
    runtime = gpu_runtime.install(wanted, _ProgressLine(wanted.download_bytes))
    print(f"Installed {runtime.name}: {human_size(runtime.size_bytes)}.\n")
    print_report(probe([runtime.device]))


class _ProgressLine:
    """Shows the progress in one line of a terminal, and only new steps elsewhere."""

    def __init__(self, total: int):
        self._total, self._message = total, ""

    def __call__(self, done: int, message: str) -> None:
        if sys.stderr.isatty():
            share = f"{human_size(done)} of about {human_size(self._total)}"
            print(f"\r\033[K{share}  {message}", end="", file=sys.stderr, flush=True)
        elif message != self._message:
            print(message, file=sys.stderr)
        self._message = message


def _list_command(arguments: argparse.Namespace) -> None:
    runtimes = gpu_runtime.installed()
    for runtime in runtimes:
        library = next((f"{n} {v}" for n, v in runtime.packages.items() if n in _LIBRARIES), "")
        other = f"  (not used: for Python {runtime.python}, install it again)"
        fits = "" if runtime.fits else other
        size = human_size(runtime.size_bytes)
        print(f"{runtime.name:14}{size:>8}  {library}  {runtime.path}{fits}")
    if not runtimes:
        print(f"No runtime is installed in {gpu_runtime.runtimes_folder()}.")


def _remove_command(arguments: argparse.Namespace) -> None:
    freed = human_size(gpu_runtime.remove(arguments.name))
    print(f"Removed {arguments.name}; {freed} are free again.")
