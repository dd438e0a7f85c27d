from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Optional

import pytest

from anyshape import threads as module
from anyshape.threads import cores, quota, threads_per_worker
from tests.conftest import settings_of

CONFIG = {"task": "sentence-embedding", "model": "m:f", "buckets": [16]}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (9, 1)])
def test_threads_and_workers_never_exceed_the_cores(
    workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cores", lambda: 8)
    assert threads_per_worker(settings_of(**CONFIG), workers) == threads


def test_the_recipe_comes_before_the_environment_and_that_before_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings_of(**CONFIG)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_worker(config, 1) == 3
    assert threads_per_worker(settings_of(**CONFIG, threads=5), 1) == 5


@pytest.mark.parametrize("value", ["", "many", "2,1", "-1"])
def test_an_environment_that_names_no_number_is_passed_over(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads_per_worker(settings_of(**CONFIG), cores()) == 1


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:30 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:31 {mounted} /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
SERVICE = "0::/system.slice/serve.service\n"
DOCKER = "12:cpuset:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n0::/docker/ab12\n"
CPU = "cpu,cpuacct/"


def v1(folder: str, allowed: int, period: int = 100_000) -> Dict[str, str]:
    return {f"{folder}cpu.cfs_quota_us": f"{allowed}\n", f"{folder}cpu.cfs_period_us": f"{period}\n"}


def machine(root: Path, mounts: str, groups: str, files: Dict[str, str]) -> Path:
    """/proc/self and /sys/fs/cgroup as the kernel shows them; `files` are paths below the latter."""
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    texts.update({"proc/self/mountinfo": mounts, "proc/self/cgroup": groups} if mounts else {})
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "expected"),
    [
        pytest.param("", "", {}, None, id="not Linux"),
        pytest.param(V2, SERVICE, {}, None, id="v2 without the cpu controller"),
        pytest.param(V2, "0::/\n", {"cpu.max": "max 100000\n"}, None, id="v2, a container without a limit"),
        pytest.param(V2, "0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, id="v2, a container"),
        pytest.param(
            V2, "0::/../other\n", {"cpu.max": "150000 100000\n"}, 1.5, id="v2, a group from outside"
        ),
        pytest.param(
            V2, SERVICE, {"system.slice/serve.service/cpu.max": "200000 50000\n"}, 4.0, id="v2, a service"
        ),
        pytest.param(
            V2,
            SERVICE,
            {"system.slice/serve.service/cpu.max": "max 100000\n", "system.slice/cpu.max": "300000 100000\n"},
            3.0,
            id="v2, the level above",
        ),
        pytest.param(
            V2,
            SERVICE,
            {
                "system.slice/serve.service/cpu.max": "100000 100000\n",
                "system.slice/cpu.max": "300000 100000\n",
                "user.slice/cpu.max": "10000 100000\n",
            },
            1.0,
            id="v2, the least of its own levels",
        ),
        pytest.param(V1.format(mounted="/"), DOCKER, v1(CPU, -1), None, id="v1 without a limit"),
        pytest.param(
            V1.format(mounted="/docker/ab12"),
            DOCKER,
            v1(CPU, 250_000),
            2.5,
            id="v1, a container sees its own group",
        ),
        pytest.param(
            V1.format(mounted="/"),
            DOCKER,
            {**v1(f"{CPU}docker/ab12/", -1), **v1(f"{CPU}docker/", 40_000, 20_000), **v1(CPU, -1)},
            2.0,
            id="v1, the level above",
        ),
        pytest.param(
            V1.format(mounted="/"),
            "4:cpu,cpuacct:/\n0::/\n",
            v1("cpuset/", 100_000),
            None,
            id="v1, another controller",
        ),
    ],
)
def test_the_quota_is_the_least_of_the_groups_of_this_process(
    mounts: str, groups: str, files: Dict[str, str], expected: Optional[float], tmp_path: Path
) -> None:
    assert quota(machine(tmp_path, mounts, groups, files)) == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
@pytest.mark.parametrize(("allowed", "expected"), [("max", 8), ("50000", 1), ("350000", 3), ("1600000", 8)])
def test_the_cores_are_whole_ones_of_the_affinity_that_the_quota_allows(
    allowed: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cores(machine(tmp_path, V2, "0::/\n", {"cpu.max": f"{allowed} 100000\n"})) == expected
