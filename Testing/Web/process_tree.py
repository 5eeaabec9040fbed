"""Which processes a process has started, and whether they still run; by Linux's /proc."""

from pathlib import Path

from waiting import wait_until


def descendants(pid: int) -> set[int]:
    """The running processes that ``pid`` has started, and those that these have started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (parent := _parent(int(folder.name))):
            parents[int(folder.name)] = parent
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def until_all_end(pids: set[int]) -> None:
    """Until none of these processes runs any more."""
    wait_until(lambda: all(_parent(pid) is None for pid in pids))


def _parent(pid: int) -> int | None:
    """None for one that has ended, even if nobody has asked for its exit code yet."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)
