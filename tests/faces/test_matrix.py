"""One archive, the same 500 inputs and 30 bad ones through every face: `make test-matrix`.

The answers are held against the plain, unpadded model in transformers, within the recipes' tolerance (1e-4
of a vector's largest number); the errors against what each input deserves: status, type and reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT, TextOf, assert_close, mean_embedding, unpacked
from tests.faces import cases, matrix
from tests.faces.everywhere import (
    Ask,
    Told,
    has_half_a_pair,
    in_python,
    kind_of,
    over_http,
    over_kserve,
    over_ray_data,
    send,
)
from tests.faces.kserve_server import kserve_server
from tests.faces.ray_server import ray_server
from tests.faces.test_engine import through_worker
from tests.handler.frontend import Sent, Worker
from tests.server.fronted import Fronted

pytestmark = pytest.mark.kserve
BUCKETS = [16, 32, 64, 128, 256, matrix.LARGEST]
NAME = "minilm"
FACES = ["TorchServe", "the front", "Ray Serve", "KServe", "KServe, own words", "Ray Data", "Python"]
WIRES = ["TorchServe", "the front", "Ray Serve", "KServe, own words"]
Wire = tuple[str, dict[str, str]]  # where the model is asked, and with which headers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """store/minilm.mar: the recipe that ships, with fewer buckets to compile and one worker."""
    from anyshape.building.build import build

    folder = tmp_path_factory.mktemp("matrix")
    recipe = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))
    recipe.update(minWorkers=1, maxWorkers=1)
    recipe["handler"].update(buckets=BUCKETS, threads=1)
    path = folder / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    build(path, folder / "store")
    return folder


class Inputs(NamedTuple):
    """What every face is asked, in this order. `expected`: of each a vector, or (status, type)."""

    values: list[Any]
    expected: list[Any]


@pytest.fixture(scope="module")
def inputs(text_of: TextOf, minilm_folder: Path, tokenizer: Any) -> Inputs:
    from benchmarks.serving.workloads import corpus

    plain = mean_embedding(minilm_folder, tokenizer)

    def embed(value: Any) -> np.ndarray:
        if isinstance(value, str):
            return plain(value)
        pair = value.get("text_pair")
        return plain(value["text"], text_pair=pair) if pair else plain(value["text"])

    good, bad = matrix.good(text_of, corpus()), matrix.bad(text_of)
    assert (len(good), len(bad)) == (matrix.GOOD, matrix.BAD)
    asked = [(value, embed(value)) for value in good]
    for i, (value, *deserved) in enumerate(bad):  # each among neighbours that are answered
        asked.insert(16 * i + 5, (value, tuple(deserved)))
    return Inputs([value for value, _ in asked], [expected for _, expected in asked])


@pytest.fixture(scope="module")
def fronted(folder: Path) -> Iterator[Fronted]:
    with Fronted(folder, NAME) as server:
        yield server


@pytest.fixture(scope="module")
def ray(folder: Path) -> Iterator[str]:
    with ray_server(folder / "store" / f"{NAME}.mar", NAME, folder / "ray.log") as address:
        yield address


@pytest.fixture(scope="module")
def kserve(folder: Path) -> Iterator[str]:
    with kserve_server(folder / "store" / f"{NAME}.mar", NAME, folder / "kserve.log") as address:
        yield address


def wire_of(name: str, request: pytest.FixtureRequest) -> Wire:
    """The servers are started once, when they are first asked for."""
    if name == "Ray Serve":
        return f"{request.getfixturevalue('ray')}/predictions/{NAME}", {}
    if name == "KServe, own words":
        return f"{request.getfixturevalue('kserve')}/openai/predictions/{NAME}", {}
    server: Fronted = request.getfixturevalue("fronted")
    if name == "the front":
        return f"{server.url}/predictions/{NAME}", server.bearer
    key = json.loads((server.run / "key_file.json").read_text(encoding="utf-8"))["inference"]["key"]
    return f"http://127.0.0.1:{server.ports[0]}/predictions/{NAME}", {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module", params=FACES)
def told(request: pytest.FixtureRequest, inputs: Inputs, folder: Path) -> list[Told]:
    """What one face says of all inputs."""
    archive = folder / "store" / f"{NAME}.mar"
    ask: Ask
    if request.param == "Ray Data":
        ask = over_ray_data(archive, folder)
    elif request.param == "Python":
        ask = in_python(archive)
    elif request.param == "KServe":
        ask = over_kserve(f"{request.getfixturevalue('kserve')}/v1/models/{NAME}:predict")
    else:
        ask = over_http(*wire_of(request.param, request))
    found = ask(inputs.values)
    assert len(found) == matrix.GOOD + matrix.BAD
    return found


def test_the_answers_are_the_plain_models(told: list[Told], inputs: Inputs) -> None:
    for value, expected, one in zip(inputs.values, inputs.expected, told):
        if isinstance(expected, np.ndarray):
            assert one.code == 200, (value, one)
            assert_close(one.answer, expected)


def test_the_errors_are_those_deserved(told: list[Told], inputs: Inputs, reasons: list[str]) -> None:
    """In KServe's words errors have no type, and its own reader refuses half a surrogate pair as no JSON."""
    bad = [(value, expected) for value, expected in zip(*inputs) if isinstance(expected, tuple)]
    errors = [one for one in told if one.code != 200]
    assert len(errors) == len(bad)
    own_words = any(one.kind for one in errors)
    for (value, (code, kind)), one, reason in zip(bad, errors, reasons):
        if own_words:
            assert (one.code, one.kind, one.why) == (code, kind, reason), value
        elif has_half_a_pair(value):
            assert one.code == 400, value
        else:
            assert (one.code, one.why) == (code, reason), value


@pytest.fixture(scope="module")
def worker(folder: Path) -> Worker:
    """TorchServe's own worker code, without the server around it."""
    return Worker(unpacked(folder / "store" / f"{NAME}.mar", folder / "unpacked"))


@pytest.fixture(scope="module")
def reasons(worker: Worker, inputs: Inputs) -> list[str]:
    """What the worker says of each bad input, word for word."""
    said = []
    for value, expected in zip(*inputs):
        if isinstance(expected, tuple):
            (received,) = worker.predict([Sent(cases.sent({"inputs": [value]}), cases.JSON)])
            said.append(Told(received.status, message=received.json()["message"]).why)
    return said


@pytest.mark.parametrize("name", WIRES)
def test_what_is_wrong_with_a_request_is_said_alike(
    name: str, request: pytest.FixtureRequest, worker: Worker, text_of: TextOf
) -> None:
    """Malformed bodies, wrong content types, other clients' paths: statuses and kinds of errors."""
    wire = wire_of(name, request)
    for case in cases.bad(text_of, matrix.LARGEST):
        expected = through_worker(worker, case)
        assert expected.status == case.status
        assert (case.name, *send(*wire, case)) == (case.name, case.status, kind_of(expected.body))
