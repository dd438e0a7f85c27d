"""Archives that cannot be loaded, and disks without room for them: `serve` says which and why, and ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anyshape.server.checks import ServeError, check_archive
from tests.server.harness import ECHO, make_archive
from tests.server.served import Served

SECONDS = 60  # far below the 600 that `anyshape serve` waits for a model to load


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return make_archive(folder, "echo", ECHO, work=folder)


@pytest.fixture
def served(tmp_path: Path, packed: Path) -> Served:
    (tmp_path / "store").mkdir()
    shutil.copy(packed, tmp_path / "store")
    return Served(tmp_path, "echo")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 6 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root mounts a small disk, and not everywhere")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def ends(served: Served) -> str:
    """What `anyshape serve` says at its end, without the lines that TorchServe printed before."""
    served.start()
    assert served.process.wait(SECONDS) == 1, served.output
    assert served.leftovers() == []
    said = served.output[served.output.index("error: ") :]
    assert "Traceback" not in said
    return said.strip()


def test_every_flipped_bit_that_changes_a_file_is_found(packed: Path, tmp_path: Path) -> None:
    data, good, damaged = packed.read_bytes(), contents(packed), tmp_path / "damaged.mar"
    check_archive(packed)
    said = []
    for i in range(len(data)):
        flipped = bytearray(data)
        flipped[i] ^= 1 << i % 8
        damaged.write_bytes(flipped)
        try:
            check_archive(damaged)
        except ServeError as error:
            said.append(str(error))
        else:
            assert contents(damaged) == good, i
    assert len(said) > len(data) / 2
    assert all(str(damaged) in each and "\n" not in each for each in said)


def test_a_truncated_archive_is_named_at_once(served: Served, packed: Path) -> None:
    archive = served.store / "echo.mar"
    for kept in (0, 1, packed.stat().st_size // 2, packed.stat().st_size - 1):
        archive.write_bytes(packed.read_bytes()[:kept])
        with pytest.raises(ServeError, match="cut off or damaged"):
            check_archive(archive)
    said = ends(served)
    assert said.startswith(f"error: {archive} is cut off or damaged (")
    assert said.endswith("copy it again, or build it again (./build_mar.sh recipes/echo.yaml)")
    assert not (served.run / "logs").exists()  # TorchServe was not started


def test_a_damaged_file_in_an_archive_is_named(served: Served) -> None:
    archive = served.store / "echo.mar"
    archive.write_bytes(archive.read_bytes().replace(b"class Echo", b"class Ecko"))
    assert ends(served).startswith(f"error: {archive} is damaged, in 'echo_handler.py': copy it again")


def test_a_zip_that_is_no_archive_is_named(served: Served) -> None:
    archive = served.store / "echo.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("notes.txt", "nothing")
    assert "it has no MAR-INF/MANIFEST.json" in ends(served)


@pytest.mark.slow
def test_what_only_torchserve_stumbles_over_ends_it_too(served: Served) -> None:
    archive = served.store / "echo.mar"
    data = bytearray(archive.read_bytes())
    assert data[:4] == b"PK\x03\x04"
    data[8] = (
        99  # a way of compression that does not exist, said where zipfile does not look: before the file
    )
    archive.write_bytes(data)
    check_archive(archive)
    why = "java.util.zip.ZipException: invalid compression method"
    assert ends(served) == f"error: TorchServe could not load {archive}: {why}"


def test_an_archive_that_does_not_fit_on_the_disk_is_named(served: Served, small_disk: Path) -> None:
    archive = served.store / "echo.mar"
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("weights.bin", bytes(8_000_000))
    served.command[served.command.index(str(served.run))] = str(small_disk / "run")
    said = ends(served)
    assert said.startswith(
        f"error: the disk of {small_disk}/run/tmp is full: {archive} unpacked there take 8.0 MB"
    )
    assert "--run" in said
    assert not (small_disk / "run" / "tmp").exists()


@pytest.mark.slow
def test_a_disk_that_fills_while_the_model_loads_ends_it(served: Served, small_disk: Path) -> None:
    fill = (
        "        import os\n"
        "        with open(os.environ['TMPDIR'] + '/full', 'wb', 0) as file:\n"
        "            try:\n"
        "                while file.write(bytes(65536)):\n"
        "                    pass\n"
        "            except OSError:\n"
        "                import time\n"
        "                time.sleep(600)\n"
    )
    filling = ECHO.replace("        self.context = context\n", fill)
    make_archive(served.store, "filling", filling, work=served.store.parent)
    served.command[served.command.index(str(served.run))] = str(small_disk / "run")
    served.command[-1] = "filling"
    said = ends(served)
    assert said.startswith(
        f"error: the disk of {small_disk}/run is full, while TorchServe loads filling: make room"
    )


def test_a_run_folder_that_cannot_be_made_is_one_line(served: Served) -> None:
    served.run.write_text("in the way")
    said = ends(served)
    assert said.startswith("error: the run folder cannot be written: ")
    assert str(served.run) in said
    assert len(said.splitlines()) == 1


def write(archive: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return archive


def declare(archive: Path, name: str, size: int, checksum: int | None = None) -> None:
    """Let a file of an archive declare another size, where it is read first: at the archive's end."""
    data = bytearray(archive.read_bytes())
    entry = data.rindex(name.encode()) - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    if checksum is not None:
        data[entry + 16 : entry + 20] = checksum.to_bytes(4, "little")
    archive.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "declared"),
    [("notes.json", bytes(3_000_000), 3_000_000), ("weights.bin", b"few", 2_000_000_000)],
)
def test_a_file_that_declares_absurdly_much_is_refused_before_anything_is_read(
    name: str, content: bytes, declared: int, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write(tmp_path / "bomb.mar", {**contents(packed), name: content})
    declare(archive, name, declared)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(ServeError, match=rf"bomb\.mar: '{name}' unpacks \d+ bytes to {declared}, as no file"):
        check_archive(archive)


@pytest.mark.parametrize("declared", [10, 99, 101])
def test_a_file_that_is_not_of_the_size_that_it_declares_is_found(
    declared: int, packed: Path, tmp_path: Path
) -> None:
    """Also where the checksum is that of as many bytes as it declares, as zipfile itself would check it."""
    content = bytes(range(100))
    archive = write(tmp_path / "sizes.mar", {**contents(packed), "some.bin": content})
    check_archive(archive)
    declare(archive, "some.bin", declared, zlib.crc32(content[:declared]))
    with pytest.raises(ServeError, match=r"sizes\.mar is damaged, in 'some\.bin'"):
        check_archive(archive)


def without(start: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {name: content for name, content in files.items() if not name.startswith(start)}


def edited(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def edit(files: dict[str, bytes]) -> dict[str, bytes]:
        assert old in files[name]
        return {**files, name: files[name].replace(old, new)}

    return edit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("anyshape/"), "it has no anyshape/__init__.py"),
        (without("handler/"), "it has no handler/__init__.py"),
        (without("bucketed_handler.py"), "has no bucketed_handler.py, the handler that its MAR-INF"),
        (without("buckets.json"), "it has no buckets.json"),
        (without("model-config.yaml"), "it has no model-config.yaml"),
        (without("assets/text.json"), "assets/text.json is named in buckets.json but missing"),
        (edited("assets/tokenizer.json", b"[UNK]", b"[UNQ]"), "assets/tokenizer.json is damaged: its sha256"),
        (edited("buckets.json", b'"format": 1', b'"format": 2'), "buckets.json has format 2"),
        (edited("model-config.yaml", b"- 4\n", b"- 5\n"), "handler.buckets is [(5,), "),
        (edited("model-config.yaml", b"handler:", b"handler: ["), "model-config.yaml"),
    ],
)
def test_an_archive_that_its_worker_would_refuse_is_refused_before_one_starts(
    damage: Callable[[dict[str, bytes]], dict[str, bytes]],
    said: str,
    embedding_archive: Path,
    tmp_path: Path,
) -> None:
    check_archive(embedding_archive)
    archive = write(tmp_path / "damaged.mar", damage(contents(embedding_archive)))
    with pytest.raises(ServeError) as raised:
        check_archive(archive)
    message = str(raised.value)
    assert str(archive) in message
    assert said in message
    assert "\n" not in message


def test_an_archive_without_the_engine_does_not_come_up_with_the_installed_one(
    served: Served, embedding_archive: Path
) -> None:
    archive = write(served.store / "echo.mar", without("anyshape/")(contents(embedding_archive)))
    expected = f"error: {archive} is no whole archive of bucketed models, it has no anyshape/__init__.py: "
    assert ends(served).startswith(expected)
    assert not (served.run / "logs" / "ts_log.log").exists()  # TorchServe was not started
