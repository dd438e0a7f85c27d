"""`anyshape neuron check` against the SDK's stand-ins, with buckets and a BERT that are small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyshape.building import neuron_check
from anyshape.cli.main import main

STAND_INS = Path(__file__).parent.parent / "backends" / "neuron_stand_ins"
SMALL = "BertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64, "
LISTED = '[{"neuron_device": 0, "nc_count": %d, "neuron_processes": [{"command": "secret"}]}]'
MACHINES = {"neuronx": ("inf2.xlarge", 2, [999.1, 1337.1]), "neuron": ("inf1.xlarge", 4, [31.4, 273.9])}


@pytest.fixture
def backend() -> str:
    return "neuronx"


@pytest.fixture
def machine(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest instance of a kind, as far as neuron-ls says."""
    kind, cores, _ = MACHINES[backend]
    command = tmp_path / "bin" / "neuron-ls"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\n[ -n \"$1\" ] && echo '{LISTED % cores}' || echo 'instance-type: {kind}'\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.setenv("NEURON_STAND_IN_LOCKS", str(tmp_path))
    monkeypatch.setenv("NEURON_STAND_IN_CORES", str(cores))
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "1")
    monkeypatch.setattr(neuron_check, "MODELS", neuron_check.MODELS.replace("BertConfig(", SMALL))
    sections = neuron_check.recipes(backend)
    sections["text"].update(buckets=[16], batch_sizes=[1])
    sections["pictures"].update(buckets=[[64, 96]], batch_sizes=[1])
    monkeypatch.setattr(neuron_check, "recipes", lambda backend: sections)


@pytest.mark.slow
@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("backend", ["neuronx", "neuron"])
def test_everything_is_tried_and_written_down(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    done = main(["neuron", "check", "--out", str(out), "--seconds", "0.2", "--layers", "1", "--jobs", "1"])
    found = json.loads(out.read_text())
    assert done == 0, found
    kind, cores, published = MACHINES[backend]
    assert (found["backend"], found["failed"]) == (backend, [])
    here = found["environment"]
    assert (here["family"], here["cores"]) == (kind.partition(".")[0], cores)
    assert here["packages"]["torch"]
    assert here["variables"]["NEURON_RT_NUM_CORES"] == "1"
    assert "secret" not in out.read_text(), "nothing of whatever else runs there"
    assert set(found["recipes"]) == {"text", "pictures", "bert"}
    for made in found["recipes"].values():
        assert made["versions"].get("target") == ("inf2" if backend == "neuronx" else None)
        assert all(deviation < 1e-4 for deviation in made["deviations"].values())
    assert [row["batch"] for row in found["speed"]["batches"]] == [1, 8]
    for row in found["speed"]["batches"]:
        assert row["threads_1"]["calls"] > 0
        assert row["threads_2"]["per_second"] > 0
    assert [row["published_per_core"] for row in found["speed"]["batches"]] == published
    assert "attach it to an issue" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("machine")
def test_a_part_that_fails_is_written_down_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {
        "text": {"task": "sentence-embedding", "model": "package:no_such_package/model", "buckets": [8]}
    }
    monkeypatch.setattr(neuron_check, "recipes", lambda backend: sections)
    out = tmp_path / "found.json"
    assert main(["neuron", "check", "--out", str(out), "--seconds", "0.2", "--jobs", "1"]) == 1
    found = json.loads(out.read_text())
    assert found["failed"] == ["text", "speed"]
    assert "no_such_package" in found["recipes"]["text"]["error"]


def test_without_the_sdk_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(neuron_check.importlib.util, "find_spec", lambda name: None)
    assert main(["neuron", "check", "--out", str(tmp_path / "found.json")]) == 1
    assert "install requirements/neuron-sdk.txt" in capsys.readouterr().err
