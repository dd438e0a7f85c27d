from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from anyshape.cli.main import main


def test_inspect_prints_what_is_inside(embedding_archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(embedding_archive)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for said in (
        "embedding version 1.0",
        "sentence-embedding · torchscript · float32",
        "compiled in",
        "deviation",
        "any number of rows up to 4",
        "million weights",
        "models/buckets.pt",
        "torch 2",
    ):
        assert said in out
    for bucket in ("4", "8", "16", "32"):
        assert any(line.split("│")[1:2] == [f" {bucket:<6} "] for line in out.splitlines()), out


def test_json_is_all_that_is_printed(embedding_archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(embedding_archive), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["model"]["modelName"] == "embedding"
    assert [entry["bucket"] for entry in found["buckets"]] == [[4], [8], [16], [32]]
    assert found["archive_bytes"] == embedding_archive.stat().st_size
    with zipfile.ZipFile(embedding_archive) as packed:
        assert found["files"] == {i.filename: i.file_size for i in packed.infolist() if not i.is_dir()}
        assert found["assets"] == json.loads(packed.read("buckets.json"))["assets"]


def test_memory_counts_what_the_buckets_share(
    embedding_archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(embedding_archive), "--memory", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory["programs"] == 4
    # The tensors of one BERT of two layers, not of four.
    assert 30 < memory["distinct_parameter_tensors"] < 45
    assert memory["bytes_before_loading"] > 0
    assert memory["bytes_after_warm_up"] > 0
    assert memory["bytes_shared_with_other_workers"] > 1e6
    assert main(["inspect", str(embedding_archive), "--memory"]) == 0
    assert "bytes after warm up" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "other", "manifest", "folder"])
def test_what_is_no_archive_is_refused_in_one_line(
    kind: str, embedding_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.mar"
    if kind == "text":
        path.write_text("text", encoding="utf-8")
    elif kind == "cut":
        path.write_bytes(embedding_archive.read_bytes()[:-100])
    elif kind == "folder":
        path.mkdir()
    elif kind in ("other", "manifest"):
        with zipfile.ZipFile(embedding_archive) as whole, zipfile.ZipFile(path, "w") as packed:
            packed.writestr("MAR-INF/MANIFEST.json", "[]")
            if kind == "manifest":
                packed.writestr("buckets.json", whole.read("buckets.json"))
    assert main(["inspect", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "x.mar" in err
    assert err.count("\n") == 1
