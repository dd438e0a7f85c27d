"""Archives that are not what a list says, or not from whom, are not served, at start or by a swap; signed by
ssh-keygen itself."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anyshape.cli.main import main
from anyshape.server.checks import ServeError
from anyshape.server.torchserve import TorchServe
from anyshape.server.trust import Trust, sha256_of, sign
from tests.conftest import write_recipe
from tests.server.conftest import options
from tests.server.harness import ECHO, Server, make_archive, write_config

Versions = Callable[..., Path]

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


def sign_for(key: Path, archive: Path, namespace: str) -> None:
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
    sign_for(theirs, archive, "anyshape")
    with pytest.raises(ServeError, match="of nobody"):
        trust.check(archive)
    sign_for(ours, archive, "file")
    with pytest.raises(ServeError, match=r"not build@example\.org's"):
        trust.check(archive)
    sign_for(ours, archive, "anyshape")
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
        trust=Trust(sums=tmp_path / "sums"),
    )
    with pytest.raises(ServeError, match="not served"), server:
        pass
    assert server.process is None


@pytest.fixture
def asks(operated: Server) -> Iterator[Callable[[Trust], None]]:
    """asks(trust): the running server is one that was started so."""
    yield lambda trust: trust.save(operated.torchserve.run)
    Trust().save(operated.torchserve.run)


def swap(server: Server, archive: Path, *more: str) -> int:
    return main(["swap", str(archive), "--store", str(server.store), *options(server), *more])


def default(server: Server) -> str:
    (described,) = server.manage("GET", "/models/tiny").json()
    return str(described["modelVersion"])


def test_a_swap_takes_what_a_restart_would_serve_and_nothing_else(
    operated: Server,
    versions: Versions,
    asks: Callable[[Trust], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, files = default(operated), sorted(operated.store.iterdir())
    sums, archive = tmp_path / "sums", versions("2.0" if default(operated) == "1.0" else "1.0")
    sums.write_text(f"{'0' * 64}  tiny.mar\n{sha256_of(archive)}  other.mar\n")
    assert swap(operated, archive, "--sums", str(sums)) == 1
    assert "which is not what" in capsys.readouterr().err
    asks(Trust(sums=sums))
    assert swap(operated, archive) == 1, "what the server was started with counts without being said again"
    assert "which is not what" in capsys.readouterr().err
    assert default(operated) == before
    assert sorted(operated.store.iterdir()) == files

    sums.write_text(f"{sha256_of(archive)}  tiny.mar\n{sha256_of(operated.store / 'tiny.mar')}  tiny.mar\n")
    assert swap(operated, archive) == 0, capsys.readouterr().err
    assert default(operated) != before
    Trust(sums=sums).check(operated.store / "tiny.mar")  # as the restart does
    assert swap(operated, operated.store / f"tiny-{before}.mar") == 0, capsys.readouterr().err
    assert default(operated) == before


@pytest.mark.slow
@needs_openssh
def test_a_swap_takes_signed_archives_with_their_signatures(
    operated: Server,
    versions: Versions,
    asks: Callable[[Trust], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, signers = key(tmp_path, "ours"), tmp_path / "signers"
    signers.write_text(f"build@example.org {ours.with_suffix('.pub').read_text()}")
    asks(Trust(signers=signers))
    before = default(operated)
    archive = Path(shutil.copy(versions("2.0" if before == "1.0" else "1.0"), tmp_path / "new.mar"))
    assert swap(operated, archive) == 1
    assert "the signature" in capsys.readouterr().err
    sign(archive, ours)
    sign(operated.store / "tiny.mar", ours)
    assert swap(operated, archive) == 0, capsys.readouterr().err
    Trust(signers=signers).check(operated.store / "tiny.mar")  # as the restart does
    assert swap(operated, operated.store / f"tiny-{before}.mar") == 0, capsys.readouterr().err
    Trust(signers=signers).check(operated.store / "tiny.mar")
    assert default(operated) == before


def test_tune_says_before_it_builds_that_the_server_would_refuse_what_comes_of_it(
    operated: Server,
    encoder_folder: Path,
    asks: Callable[[Trust], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe(tmp_path, "tiny", task="sentence-embedding", model=str(encoder_folder))
    asked = ["tune", str(recipe), "--store", str(operated.store), *options(operated)]
    asks(Trust(sums=tmp_path / "sums"))
    assert main(asked) == 1
    assert "add its sum, and swap it" in capsys.readouterr().err
    asks(Trust(signers=tmp_path / "signers"))
    assert main(asked) == 1
    assert "--sign KEY" in capsys.readouterr().err
