"""How many threads a worker may have: the cores that this process really gets, shared by the workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator, Optional, Tuple

from anyshape.settings import Settings


def threads_per_worker(settings: Settings, workers: int) -> int:
    """Intra-op threads: the recipe's, else OMP_NUM_THREADS, else cores ÷ workers, so that threads × workers
    never exceed the cores."""
    if settings.threads is not None:
        return settings.threads
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return max(1, cores() // max(1, workers))


def cores(root: Path = Path("/")) -> int:
    """The whole cores that this process may use: those of its affinity, or fewer where a quota allows less.

    A container with `--cpus 2` on a machine of 64 cores sees 64 of them, and is stopped for the rest of every
    tenth of a second if it runs more than two threads.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = quota(root)
    return seen if allowed is None else max(1, min(seen, int(allowed)))


def quota(root: Path = Path("/")) -> Optional[float]:
    """The cores that the control groups (version 1 or 2) allow, the least of all levels; None: no limit.

    `root` is where /proc and /sys are found.
    """
    limits = []
    for mount, group in _cpu_groups(root):
        for folder in (group, *group.parents):
            limit = _limit(folder)
            if limit is not None:
                limits.append(limit)
            if folder == mount:
                break
    return min(limits, default=None)


def _cpu_groups(root: Path) -> Iterator[Tuple[Path, Path]]:
    """(mount point, folder of this process's group below it) of each hierarchy that may limit the CPU.

    Sources: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5).
    """
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    paths = {}
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    for line in mounts:
        before, after = line.split(" - ", 1)
        kind, _, options = after.split(" ", 2)
        if kind not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        mounted, point = before.split()[3:5]
        mount = root / point.lstrip("/")
        # What is mounted may be a group within the hierarchy (a container's own): paths below it count.
        inside = paths[kind] == mounted or paths[kind].startswith(mounted.rstrip("/") + "/")
        below = paths[kind][len(mounted) :] if inside else ""
        yield mount, mount if ".." in below.split("/") else mount / below.strip("/")


def _limit(group: Path) -> Optional[float]:
    """The cores that one group allows: version 2 says `150000 100000` or `max 100000` in one file, version 1
    has a file for each number, and -1 for none."""
    try:
        if (group / "cpu.max").is_file():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed, period = ((group / f"cpu.cfs_{key}_us").read_text() for key in ("quota", "period"))
        return None if allowed.strip() == "max" or int(allowed) <= 0 else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # the root has no such files
        return None
