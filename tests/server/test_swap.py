"""`anyshape swap` under clients that never stop asking: none loses an answer, no bad version ever serves."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from anyshape.cli.main import main
from anyshape.packed import MANIFEST
from tests.conftest import TextOf, assert_close
from tests.server.conftest import options
from tests.server.harness import Server

CLIENTS = 8
Versions = Callable[..., Path]


@contextmanager
def honest_clients(server: Server, answers: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Clients that ask all the time and compare every answer; what they found wrong is in the list."""
    wrong: list[str] = []
    asked = [0] * CLIENTS
    stop = threading.Event()

    def ask(client: int) -> None:
        texts = list(answers)
        while not stop.is_set():
            text = texts[(client + asked[client]) % len(texts)]
            try:
                response = server.predict_text("tiny", text)
                if response.status_code != 200:
                    wrong.append(f"{response.status_code} {response.text}")
                else:
                    assert_close(response.json(), answers[text])
            except (httpx.HTTPError, AssertionError) as error:
                wrong.append(repr(error))
            asked[client] += 1
            time.sleep(0.01)  # both cores are not theirs alone

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(asked) > 0, "somebody was never answered"


@pytest.fixture(scope="module")
def answers(plain_embedding: Callable[..., np.ndarray], text_of: TextOf) -> dict[str, np.ndarray]:
    texts = [text_of(size) for size in (3, 5, 8, 9, 16, 17, 20, 30)]
    return {text: plain_embedding(text) for text in texts}


def swap(server: Server, archive: Path, *more: str) -> int:
    return main(["swap", str(archive), "--store", str(server.store), *options(server), *more])


def served(server: Server) -> dict[str, bool]:
    """The versions of tiny, and whether each is the default."""
    described = server.manage("GET", "/models/tiny/all").json()
    (default,) = server.manage("GET", "/models/tiny").json()
    return {each["modelVersion"]: each["modelVersion"] == default["modelVersion"] for each in described}


def changed(archive: Path, folder: Path, version: str, **files: Callable[[bytes], bytes]) -> Path:
    """A copy of an archive as another version, with files changed; `samples` is samples.json."""
    names = {"samples": "samples.json", "handler": "bucketed_handler.py", "index": "buckets.json"}
    changes = {names[key]: change for key, change in files.items()}
    target = folder / f"changed-{version}.mar"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == MANIFEST:
                manifest = json.loads(data)
                manifest["model"]["modelVersion"] = version
                data = json.dumps(manifest).encode()
            new.writestr(info.filename, changes.get(info.filename, lambda same: same)(data))
    return target


def test_a_swap_and_one_back_lose_nothing(
    operated: Server, versions: Versions, answers: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    before = served(operated)
    assert before == {"1.0": True}
    with honest_clients(operated, answers) as wrong:
        assert swap(operated, versions("2.0")) == 0, capsys.readouterr()
        assert served(operated) == {"2.0": True}
        said = capsys.readouterr().out.splitlines()
        assert said[-2:] == ["tiny 2.0 serves", "tiny 1.0 has finished and is unregistered"]
        assert "3 sample requests are answered as when it was built" in said
        assert (operated.store / "tiny.mar").read_bytes() == versions("2.0").read_bytes()

        assert swap(operated, operated.store / "tiny-1.0.mar") == 0, capsys.readouterr()
        assert served(operated) == {"1.0": True}
        assert (operated.store / "tiny.mar").read_bytes() == versions("1.0").read_bytes()
    assert wrong == []


def broken_code(code: bytes) -> bytes:
    return code + b"\nraise RuntimeError('this version cannot be imported')\n"


def other_answers(text: bytes) -> bytes:
    written = json.loads(text)
    written["samples"][-1]["answer"][3] += 0.01
    return json.dumps(written).encode()


def without_check(index: bytes) -> bytes:
    written = json.loads(index)
    del written["assets"]["samples.json"]
    return json.dumps(written).encode()


def wrong_sample(archive: Path, folder: Path) -> Path:
    return changed(archive, folder, "3.0", samples=other_answers, index=without_check)


def does_not_load(archive: Path, folder: Path) -> Path:
    return changed(archive, folder, "3.0", handler=broken_code)


def dies_while_loading(archive: Path, folder: Path) -> Path:
    return changed(archive, folder, "3.0", handler=lambda code: code + b"\nimport os; os._exit(9)\n")


def cut_off(archive: Path, folder: Path) -> Path:
    target = folder / "cut.mar"
    target.write_bytes(archive.read_bytes()[:100_000])
    return target


def damaged_samples(archive: Path, folder: Path) -> Path:
    return changed(archive, folder, "3.0", samples=other_answers)


def no_samples(archive: Path, folder: Path) -> Path:
    empty = b'{"samples": [], "tolerance": 0.001}'
    return changed(archive, folder, "3.0", samples=lambda _: empty, index=without_check)


def the_same(archive: Path, folder: Path) -> Path:
    return Path(shutil.copy(archive, folder / "same.mar"))


BAD = {
    wrong_sample: r"answered wrongly: the answer\[3\] is .* was .* when it was built",
    does_not_load: "the worker of tiny 3.0 does not start: RuntimeError: this version cannot be imported",
    dies_while_loading: "the worker of tiny 3.0 does not start",
    cut_off: "cut off",
    damaged_samples: "samples.json is damaged",
    no_samples: "--unproved",
    the_same: "version 1.0 of tiny, which is served already",
}


SPOILT = [pytest.param(each, marks=pytest.mark.slow) if each is dies_while_loading else each for each in BAD]


@pytest.mark.slow
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_bad_version_never_serves(
    spoil: Callable[[Path, Path], Path],
    operated: Server,
    versions: Versions,
    answers: dict[str, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive, files = spoil(versions("1.0"), tmp_path), sorted(operated.store.iterdir())
    with honest_clients(operated, answers) as wrong:
        assert swap(operated, archive) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(BAD[spoil], said), said
    if spoil not in (cut_off, damaged_samples, no_samples, the_same):  # found before anything was registered
        assert "tiny 1.0 serves on" in said
    assert wrong == []
    assert served(operated) == {"1.0": True}
    assert sorted(operated.store.iterdir()) == files


def test_a_model_that_is_not_served_is_refused(
    operated: Server, embedding_archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swap(operated, embedding_archive) == 1
    assert "serves no embedding: it serves tiny" in capsys.readouterr().err


def test_the_wrong_store_is_said(
    operated: Server, versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["swap", str(versions("2.0")), "--store", str(tmp_path), *options(operated)]) == 1
    assert f"is {tmp_path} its model store" in capsys.readouterr().err
    assert served(operated) == {"1.0": True}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_the_model_api_the_server_says_how(
    versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    shutil.copy(versions("1.0"), store / "tiny.mar")
    server = Server(tmp_path / "server", store)
    server.torchserve.model_api = False
    server.torchserve.models = ["tiny=tiny.mar"]
    with server:
        server.wait_ready("tiny")
        assert swap(server, versions("2.0")) == 1
        said = capsys.readouterr().err
        assert "--enable-model-api" in said
        assert "tiny 1.0 serves on" in said
