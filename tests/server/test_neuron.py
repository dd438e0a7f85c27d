"""Archives for Neuron in a real TorchServe, whose workers find stand-ins for the SDK and two cores."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from anyshape.building.build import build
from tests.backends.test_backends_neuron import BACKENDS, STAND_INS
from tests.conftest import assert_close, write_recipe
from tests.server.harness import Server

pytestmark = pytest.mark.slow

TOO_MANY = "too-many"
SDK = {"neuron": "1.13.1.2.11.13.0", "neuronx": "2.9.0.2.15.32035"}
LENGTHS = (2, 7, 8, 9, 16)  # tokens: within, at and beyond the smaller bucket


@pytest.fixture(scope="module")
def neuron_store(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    """neuron.mar, neuronx.mar, and an archive that wants three workers."""
    store = tmp_path_factory.mktemp("store")
    work = tmp_path_factory.mktemp("work")
    options = {"task": "sentence-embedding", "model": str(encoder_folder)}
    options |= {"buckets": [8, 16], "batch_sizes": [1, 4]}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STAND_INS))
        patch.setenv("NEURON_STAND_IN_LOCKS", str(work))
        patch.setenv("NEURON_RT_NUM_CORES", "1")
        for backend in BACKENDS:
            build(write_recipe(work, backend, backend=backend, **options), store, jobs=1)
        recipe = write_recipe(work, TOO_MANY, backend="neuron", **options)
        recipe.write_text(recipe.read_text().replace("maxWorkers: 1", "maxWorkers: 3"))
        build(recipe, store, jobs=1)
    for archive in store.glob(
        "*.mar"
    ):  # whose folder is all that the workers import from, beside their Python
        with zipfile.ZipFile(archive, "a") as packed:
            for path in STAND_INS.rglob("*.py"):
                packed.write(path, path.relative_to(STAND_INS))
    return store


@pytest.fixture(scope="module")
def neuron_server(neuron_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    machine = tmp_path_factory.mktemp("machine")
    command = machine / "neuron-ls"
    command.write_text("#!/bin/sh\necho '[{\"nc_count\": 2}]'\n")
    command.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for key in ("NEURON_RT_NUM_CORES", "NEURON_RT_VISIBLE_CORES"):
            patch.delenv(key, raising=False)
        patch.setenv("PATH", f"{machine}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("NEURON_STAND_IN_CORES", "2")
        patch.setenv("NEURON_STAND_IN_LOCKS", str(machine))
        with Server(tmp_path_factory.mktemp("server"), neuron_store) as server:
            for backend in BACKENDS:
                server.register(backend)
            yield server


def wait_for_log(server: Server, text: str) -> None:
    """TorchServe answers before it has written down what a worker said last, perhaps a long traceback."""
    deadline = time.monotonic() + 30
    while text not in server.torchserve.log_tail(1000):
        assert time.monotonic() < deadline, server.torchserve.log_tail(100)
        time.sleep(0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_are_the_unpadded_models(
    neuron_server: Server,
    backend: str,
    text_of: Callable[[int], str],
    plain_embedding: Callable[[str], np.ndarray],
) -> None:
    texts = [text_of(tokens) for tokens in LENGTHS]
    for text in texts:
        response = neuron_server.predict_text(backend, text)
        assert response.status_code == 200, neuron_server.explain(response)
        assert_close(response.json(), plain_embedding(text))
    # Five in one request: the stand-in would refuse a call of two, three or five rows.
    response = neuron_server.predict(backend, json={"inputs": texts})
    assert response.status_code == 200, neuron_server.explain(response)
    for answer, text in zip(response.json(), texts, strict=True):
        assert_close(answer, plain_embedding(text))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_description_names_the_sdk(neuron_server: Server, backend: str) -> None:
    response = neuron_server.manage("GET", f"/models/{backend}", customized="true")
    described = response.json()[0]["customizedMetadata"]
    assert described["backend"] == backend
    assert (
        described["versions"][{"neuron": "torch_neuron", "neuronx": "torch_neuronx"}[backend]] == SDK[backend]
    )


def test_an_archive_for_more_workers_than_cores_does_not_become_ready(neuron_server: Server) -> None:
    response = neuron_server.manage("POST", "/models", url=f"{TOO_MANY}.mar", initial_workers=1)
    assert response.status_code == 500, neuron_server.explain(response)
    wait_for_log(neuron_server, "maxWorkers is 3, and there are 2 NeuronCores")
    # TorchServe may have unregistered it again by itself.
    described = neuron_server.torchserve.describe(TOO_MANY) or [{"workers": []}]
    assert "READY" not in [worker["status"] for worker in described[0]["workers"]]
    assert neuron_server.predict_text(TOO_MANY, "nobody").status_code in (404, 503)
    neuron_server.manage("DELETE", f"/models/{TOO_MANY}")


def test_a_worker_that_finds_no_core_does_not_disturb_the_one_that_has_it(
    neuron_server: Server, plain_embedding: Callable[[str], np.ndarray]
) -> None:
    scale = {"min_worker": 2, "max_worker": 2, "synchronous": "true"}
    response = neuron_server.manage("PUT", "/models/neuron", **scale)
    try:
        assert response.status_code == 500, neuron_server.explain(response)
        wait_for_log(neuron_server, "nrt_init failed: 0 of 1 cores are free")
        response = neuron_server.predict_text("neuron", "still here")
        assert response.status_code == 200, neuron_server.explain(response)
        assert_close(response.json(), plain_embedding("still here"))
    finally:
        neuron_server.manage("PUT", "/models/neuron", min_worker=1, max_worker=1, synchronous="true")
