"""Limits that a container or a scheduler sets by control groups: memory and CPU time.

The system's own counts (free memory, number of CPUs) are those of the whole machine inside a
container. Version 2 of control groups and version 1 are read; a limit on a parent holds for its
children. Where nothing is limited, or this is not Linux, the functions return None.
"""

from collections.abc import Iterator
from pathlib import Path

#: Where control groups are mounted, and the file that names this process's own.
MOUNT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_memory() -> float | None:
    """Return the bytes that this process's groups leave, reclaimable page cache included."""
    left = []
    for folder in _groups("memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            cache = _stat(folder / "memory.stat", ("total_inactive_file", "inactive_file"))
            left.append(max(0.0, limit - used + cache))
    return min(left, default=None)


def cpu_quota() -> float | None:
    """Return how many CPUs' time this process's groups may use, such as 2.5."""
    quotas = []
    for folder in _groups("cpu"):
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdigit():  # else "max", or -1
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's group and its parents, of a controller."""
    for line in OWN.read_text(encoding="utf-8").splitlines() if OWN.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = MOUNT / controllers if controllers else MOUNT
        folder = root / path.lstrip("/")
        while folder.is_relative_to(root):  # a container may see its own group as the root
            if folder.is_dir():
                yield folder
            folder = folder.parent


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _number(path: Path) -> float | None:
    words = _words(path)
    return float(words[0]) if words and words[0].isdigit() else None


def _stat(path: Path, names: tuple[str, ...]) -> float:
    """The first of these values that a file of names and numbers holds; 0 where it has none."""
    words = _words(path)
    values = dict(zip(words[::2], words[1::2], strict=False))
    return next((float(values[name]) for name in names if name in values), 0.0)
