from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from anyshape.process import prepare_process
from tests.conftest import settings_of

CONFIG = {"task": "sentence-embedding", "model": "m:f", "buckets": [16]}


@pytest.fixture(autouse=True)
def _same_threads_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_process_has_its_threads() -> None:
    prepare_process(settings_of(**CONFIG, threads=1), 1)
    assert torch.get_num_threads() == 1
    assert os.environ["RAYON_NUM_THREADS"] == "1"
    del os.environ["RAYON_NUM_THREADS"]


FAULTS = """
import resource, sys
import torch
from anyshape.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # the first few may find no room where small things have settled
    before = faults()
    torch.ones(25_000_000)  # 100 MB, freed at once
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("returned", "kept")
    }
    assert faults["kept"] < 100, faults
    assert faults["kept"] < faults["returned"], faults
