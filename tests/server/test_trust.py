"""Archives that are not what a list says, or not from whom, are not served; signed by ssh-keygen itself."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from anyshape.server.checks import ServeError
from anyshape.server.torchserve import TorchServe
from anyshape.server.trust import Trust
from tests.server.harness import ECHO, make_archive, write_config

needs_openssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "echo.mar"
    path.write_bytes(b"an archive")
    return path


def key(folder: Path, name: str) -> Path:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def sign(key: Path, archive: Path, namespace: str = "anyshape") -> None:
    archive.with_name("echo.mar.sig").unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", key, archive], check=True, capture_output=True
    )


def test_a_sum_of_the_list_is_what_an_archive_must_have(archive: Path, tmp_path: Path) -> None:
    sums = tmp_path / "sums"
    digest = hashlib.sha256(b"an archive").hexdigest()
    sums.write_text(f"{'0' * 64}  other.mar\n{digest} */srv/models/echo.mar\n")
    Trust(sums=sums).check(archive)
    archive.write_bytes(b"an archivE")
    with pytest.raises(ServeError, match=r"echo\.mar has the sha256 .* not served"):
        Trust(sums=sums).check(archive)
    with pytest.raises(ServeError, match=r"does not name third\.mar"):
        Trust(sums=sums).check(archive.rename(tmp_path / "third.mar"))
    with pytest.raises(ServeError, match="cannot be read"):
        Trust(sums=tmp_path / "nosuch").check(archive)


@needs_openssh
def test_a_signature_must_be_of_this_file_by_one_who_is_named_for_this_purpose(
    archive: Path, tmp_path: Path
) -> None:
    ours, theirs = key(tmp_path, "ours"), key(tmp_path, "theirs")
    signers = tmp_path / "signers"
    signers.write_text(f"build@example.org {ours.with_suffix('.pub').read_text()}")
    trust = Trust(signers=signers)
    with pytest.raises(ServeError, match=r"the signature .* is missing"):
        trust.check(archive)
    sign(theirs, archive)
    with pytest.raises(ServeError, match="of nobody"):
        trust.check(archive)
    sign(ours, archive, namespace="file")
    with pytest.raises(ServeError, match=r"not build@example\.org's"):
        trust.check(archive)
    sign(ours, archive)
    trust.check(archive)
    archive.write_bytes(b"an archivE")
    with pytest.raises(ServeError, match=r"not build@example\.org's of this echo\.mar"):
        trust.check(archive)


def test_it_is_asked_before_anything_is_started(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    make_archive(store, "echo", ECHO, work=tmp_path)
    write_config(tmp_path / "config.properties")
    (tmp_path / "sums").write_text(f"{'0' * 64}  echo.mar\n")
    server = TorchServe(
        tmp_path / "config.properties",
        store=store,
        run=tmp_path / "run",
        models=["echo"],
        trust=Trust(sums=tmp_path / "sums").check,
    )
    with pytest.raises(ServeError, match="not served"), server:
        pass
    assert server.process is None
