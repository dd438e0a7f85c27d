"""What an archive takes, as the study of rows tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.studies import rows


def test_what_an_archive_takes(embedding_archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "archive", lambda backend, way: embedding_archive)
    found = rows.taken("torchscript", "items-4")
    assert found["programs"] == 4
    assert found["archive_bytes"] == embedding_archive.stat().st_size
    assert found["compile_seconds"] > 0
    assert found["warm_bytes"] > found["loaded_bytes"] > 0
    rows.show_memory([found])
