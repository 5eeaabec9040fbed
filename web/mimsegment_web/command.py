"""``mimsegment web``: check what was asked for, serve the page, open the browser, end cleanly."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

from MIMSegment.Logic.errors import DeviceError, InputError, OutputError
from MIMSegment.Logic.store import data_home
from mimsegment_web.address import LOOPBACK, check_host
from mimsegment_web.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``mimsegment web``."""
    parser.add_argument(
        "study", nargs="?", type=Path, metavar="FOLDER", help="study to open: a folder or a file"
    )
    parser.add_argument("--model", "-m", default="", help="model package to choose: id or folder")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of studies to offer")
    parser.add_argument(
        "--packages", type=Path, metavar="FOLDER", help="where models are installed"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        default=data_home() / "reviews",
        help="where reviews and results are kept (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on: %(default)s")
    parser.add_argument(
        "--open-to-network",
        action="store_true",
        help="needed for an address that other computers reach",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--reviewer", default="", help="name for the audit log (default: none)")
    parser.add_argument(
        "--upload-limit", type=float, default=4.0, metavar="GB", help="default: %(default)s"
    )


def run(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C. Raises MIMSegmentError before anything is started."""
    warning = check_host(arguments.host, arguments.open_to_network)
    if warning:
        print(warning, file=sys.stderr, flush=True)
    settings = _settings(arguments)
    import asyncio
    import logging

    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # a closed tab is no error
    asyncio.run(_serve(settings, not arguments.no_browser))


def _settings(arguments: argparse.Namespace) -> Settings:
    for folder in (arguments.study, arguments.data, arguments.packages):
        if folder is not None and not folder.exists():
            raise InputError(f"{folder} does not exist.")
    if not 0 <= arguments.port <= 65535:
        raise InputError(f"{arguments.port} is no port; use one of 1024 to 65535, or 0.")
    return Settings(
        study=arguments.study,
        data=arguments.data,
        packages=arguments.packages,
        output=arguments.output,
        model=arguments.model,
        reviewer=arguments.reviewer,
        host=arguments.host,
        port=arguments.port,
        upload_limit=int(arguments.upload_limit * 1e9),
    )


async def _serve(settings: Settings, browser: bool) -> None:
    import asyncio
    import webbrowser

    print("Starting ...", flush=True)
    try:
        from mimsegment_web.app import App
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"The page needs {error.name}, which is not installed: pip install 'mimsegment[web]'."
        ) from None

    def ready(url: str) -> None:
        print(f"MIM Segment is ready: {url}", flush=True)
        print("Ctrl-C ends it. Research use only. Not a medical device.", flush=True)
        if browser and _has_screen():
            webbrowser.open(url)

    app = App(settings)
    serving = asyncio.ensure_future(app.serve(ready))
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Ctrl-C, the system, a closed terminal
        # Windows has no handlers: KeyboardInterrupt instead.
        with contextlib.suppress(NotImplementedError, AttributeError):
            loop.add_signal_handler(getattr(signal, name), serving.cancel)
    stopped = False
    try:
        await serving
    except asyncio.CancelledError:
        stopped = True
    except OSError as error:
        raise OutputError(
            f"Port {settings.port} of {settings.host} cannot be used "
            f"({error.strerror or error}); choose another with --port."
        ) from None
    finally:
        app.close()
    if stopped:
        print(_farewell(app.study.saved, app.study.problem), flush=True)


def _farewell(saved: str, problem: str) -> str:
    """What became of the review, if there was one."""
    if problem:
        return f"Stopped. {problem}"
    return "Stopped; the review is saved." if saved else "Stopped."


def _has_screen() -> bool:
    """Whether a browser would have a window; one in the terminal cannot show the page."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
