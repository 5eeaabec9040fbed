"""The lists of files in MIMSegment/CMakeLists.txt: what they say, and what they must say.

    python Testing/Extension/module_files.py        rewrites the lists to hold every file

A file that is not listed is not installed, which is the commonest defect of Slicer extensions.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "MIMSegment"
CMAKE = MODULE / "CMakeLists.txt"


def files_in_tree() -> list[str]:
    """Every file of the module that git knows or would add, relative to it, sorted."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."]
    found = subprocess.run(command, cwd=MODULE, check=True, capture_output=True, text=True)
    return sorted(
        name
        for name in set(found.stdout.splitlines())  # a file in conflict is listed three times
        if name != CMAKE.name and (MODULE / name).is_file()
    )


def expected_lists() -> dict[str, list[str]]:
    """Python files are scripts, all others resources."""
    files = files_in_tree()
    return {
        "MODULE_PYTHON_SCRIPTS": [name for name in files if name.endswith(".py")],
        "MODULE_PYTHON_RESOURCES": [name for name in files if not name.endswith(".py")],
    }


def written_lists(text: str) -> dict[str, list[str]]:
    """The two lists in the text of the CMake file."""
    found = re.findall(r"^set\((MODULE_PYTHON_\w+)\n(.*?)^  \)$", text, re.MULTILINE | re.DOTALL)
    return {name: body.split() for name, body in found}


def rewrite() -> None:
    """Write the expected lists into the CMake file."""
    text = CMAKE.read_text(encoding="utf-8")
    for name, files in expected_lists().items():
        body = "".join(f"  {file}\n" for file in files)
        text = re.sub(
            rf"^set\({name}\n.*?^  \)$", f"set({name}\n{body}  )", text, flags=re.M | re.S
        )
    CMAKE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(rewrite())
