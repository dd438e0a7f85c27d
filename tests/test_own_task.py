"""The worked example of docs/own-task.md, and a backend of one's own."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from anyshape.building.build import build
from anyshape.errors import BadRequest, ConfigError, InputTooLarge, Refused, UnprocessableInput
from anyshape.items import Item
from anyshape.model import BucketedModel
from tests.conftest import ROOT, unpacked

EXAMPLE = ROOT / "docs" / "examples" / "audio"
RATE, LARGEST = 8000, 16000
LENGTHS = [1, 2, 400, 401, 1999, 2000, 2001, 3999, 4000, 4001, 7777, 8000, 8001, 15999, 16000]

Plain = Callable[[Any], Any]


def example_in(folder: Path, **handler: Any) -> Path:
    """The example in a folder of its own; `handler` are keys to change in its recipe. Returns the recipe."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = folder / "audio.yaml"
    written = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    written["handler"].update(threads=1, **handler)
    recipe.write_text(yaml.safe_dump(written), encoding="utf-8")
    return recipe


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def wav(samples: Any, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    """Samples from -1 to 1 as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(pcm(samples).tobytes() * (channels * width // 2))
    return file.getvalue()


def pcm(samples: Any) -> Any:
    return np.round(np.asarray(samples) * 32767).astype("<i2")


def tone(pitch: float, count: int, seed: int = 0) -> Any:
    """A tone in a little noise; pitch 0 is noise alone."""
    noise = np.random.default_rng([count, seed]).normal(0, 0.05, count)
    return np.clip(0.5 * np.sin(2 * np.pi * pitch * np.arange(count) / RATE) + noise, -1, 1)


def module_at(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"plain_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plain() -> Plain:
    """The example's model as it is: {label: score} of one unpadded waveform, without a mask."""
    model = module_at(EXAMPLE / "audio_model.py").make_model().eval()

    def scores(samples: Any) -> Any:
        with torch.no_grad():
            (row,) = model(torch.from_numpy(pcm(samples).astype(np.float32) / 32768)[None]).softmax(1)
        return dict(zip(model.labels, row.tolist()))

    return scores


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    return build(example_in(folder / "recipe"), folder / "store").path


@pytest.fixture(scope="module")
def audio(archive: Path) -> BucketedModel:
    return BucketedModel.load(archive)


def scores(answer: Any) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in answer}


def test_tones_are_told_from_noise(audio: BucketedModel) -> None:
    for count in (2500, 6000, 16000):
        found = audio([wav(tone(pitch, count)) for pitch in (440, 880, 0)])
        assert [answer["label"] for answer in found] == ["440 Hz", "880 Hz", "noise"]
        assert all(answer["score"] > 0.8 for answer in found)


def test_waveforms_of_any_length_are_answered_as_by_the_plain_model(
    audio: BucketedModel, plain: Plain
) -> None:
    sent = [tone((440, 880, 0)[i % 3], count, seed=i) for i, count in enumerate(LENGTHS)]
    together = audio([wav(samples) for samples in sent], top_k=3)
    for samples, answer in zip(sent, together):
        expected = plain(samples)
        assert scores(answer) == pytest.approx(expected, abs=2e-5)
        assert scores(audio(wav(samples), top_k=3)) == pytest.approx(expected, abs=2e-5)
    items = [
        item for item in audio.task.read([wav(s) for s in sent], [{}] * len(sent)) if isinstance(item, Item)
    ]
    assert [item.size for item in items] == [(count,) for count in LENGTHS]


def test_a_list_of_numbers_is_a_waveform_too(audio: BucketedModel, plain: Plain) -> None:
    samples = tone(880, 2345)
    numbers = (pcm(samples) / 32768).tolist()
    assert scores(audio([numbers], top_k=3)[0]) == pytest.approx(plain(samples), abs=2e-5)


GOOD = wav(tone(440, 100))
WRONG: dict[str, tuple[Any, type[Refused], str]] = {
    "one over": (
        wav(np.zeros(LARGEST + 1)),
        InputTooLarge,
        "has 16001 samples, .* takes 16000: .* 2 seconds",
    ),
    "numbers, one over": ([0.0] * (LARGEST + 1), InputTooLarge, "has 16001 samples"),
    "no samples": (wav([]), UnprocessableInput, "no samples"),
    "no numbers": ([], UnprocessableInput, "no samples"),
    "stereo": (wav([0.1], channels=2), UnprocessableInput, "not 2, 16 and 8000"),
    "another rate": (wav([0.1], rate=44100), UnprocessableInput, "not 1, 16 and 44100"),
    "24 bits": (wav([0.1, 0.1], width=4), UnprocessableInput, "not 1, 32 and 8000"),
    "no WAV": (b"hello", BadRequest, "no WAV file"),
    "nothing": (b"", BadRequest, "no WAV file"),
    "half a header": (GOOD[:20], BadRequest, "no WAV file"),
    "a part longer than the file": (GOOD[:16] + b"\xff\xff\xff\x7f" + GOOD[20:], BadRequest, "no WAV file"),
    "float samples": (GOOD[:20] + b"\x03" + GOOD[21:], BadRequest, "unknown format: 3"),
    "a claim of two gigabytes": (
        GOOD[:40] + b"\xfe\xff\xff\x7f" + GOOD[44:],
        InputTooLarge,
        "has 1073741823 samples",
    ),
    "cut off": (GOOD[:-10], BadRequest, "cut off: 95 of its 100"),
    "words": (["a"], UnprocessableInput, "from -1 to 1"),
    "booleans": ([True], UnprocessableInput, "from -1 to 1"),
    "too loud": ([0.5, 1.5], UnprocessableInput, "from -1 to 1"),
    "not a number": ([float("nan")], UnprocessableInput, "from -1 to 1"),
    "a huge number": ([10**400], UnprocessableInput, "from -1 to 1"),
    "a number alone": (0.5, UnprocessableInput, "base64 or a list of numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_waveform_is_refused_alone(audio: BucketedModel, name: str) -> None:
    value, error, says = WRONG[name]
    refused, beside = audio.task.read([value, GOOD], [{}, {}])
    assert type(refused) is error
    with pytest.raises(error, match=says):
        raise refused
    assert isinstance(beside, Item)


def test_the_archive_carries_the_serving_half_alone(archive: Path) -> None:
    names = set(zipfile.ZipFile(archive).namelist())
    assert "audio_task.py" in names
    assert not names & {"audio_building.py", "audio_model.py"}


@pytest.mark.slow
def test_a_worker_needs_nothing_but_the_archive(archive: Path, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path / "unpacked")
    (tmp_path / "tone.wav").write_bytes(wav(tone(440, 3000)))
    code = (
        "import json, sys; from pathlib import Path; from anyshape.model import BucketedModel; "
        "answer = BucketedModel.load('.')(Path('../tone.wav').read_bytes()); import anyshape; "
        "print(json.dumps([answer['label'], anyshape.__file__, [m for m in sys.modules if 'building' in m]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["440 Hz", str(folder / "anyshape" / "__init__.py"), []]


def test_the_example_is_python_that_the_oldest_worker_reads() -> None:
    for path in EXAMPLE.glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_two_archives_with_files_of_the_same_name_serve_in_one_process(
    audio: BucketedModel, tmp_path: Path
) -> None:
    recipe = example_in(tmp_path / "other", buckets=[2000])
    edit(tmp_path / "other" / "audio_task.py", "answers[0]", '{"loudly": answers[0]["label"].upper()}')
    edit(tmp_path / "other" / "audio_model.py", '"noise"]', '"hiss"]')
    other = BucketedModel.load(build(recipe, tmp_path / "store").path)
    noise = wav(tone(0, 1500))
    assert other(noise) == {"loudly": "HISS"}
    assert audio(noise)["label"] == "noise"
    assert not {"audio_task", "audio_building", "audio_model"} & set(sys.modules)


def test_the_building_half_imports_the_class_that_serves(tmp_path: Path) -> None:
    recipe = example_in(tmp_path / "recipe", buckets=[2000])
    edit(
        tmp_path / "recipe" / "audio_building.py",
        "        draw = ",
        "        assert isinstance(self.task, AudioClassification)\n        draw = ",
    )
    build(recipe, tmp_path / "store")


@pytest.mark.parametrize("masked", ["square() * real[:, None, :]", "(bands * real[:, None, :])"])
def test_a_model_that_forgets_its_mask_is_not_packed(masked: str, tmp_path: Path) -> None:
    recipe = example_in(tmp_path / "recipe", buckets=[2000])
    edit(tmp_path / "recipe" / "audio_model.py", masked, masked.replace(" * real[:, None, :]", ""))
    with pytest.raises(
        ConfigError,
        match=r"2000 by .* every mixing of positions in it must heed mask, or pad nothing: .* to 2000;",
    ):
        build(recipe, tmp_path / "store")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), r"audio_task\.py is named in buckets\.json but missing"),
        (lambda path: edit(path, "softmax", "sigmoid"), r"audio_task\.py is damaged"),
    ],
)
def test_an_archive_without_its_own_file_is_refused(
    archive: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    folder = unpacked(archive, tmp_path / "unpacked")
    damage(folder / "audio_task.py")
    with pytest.raises(ConfigError, match=says):
        BucketedModel.load(folder)


# A backend of one's own

BACKEND = """
import os
from anyshape.backends.torchscript import TorchScript

class Counting(TorchScript):
    name = "counting"
    compiler = "{compiler}"
    options = {{"digits": 3}}

    def prepare_process(self, workers=1):
        os.environ["COUNTING_WORKERS"] = str(workers)

    def versions(self):
        return {{**super().versions(), "counting": os.environ["COUNTING_WORKERS"]}}
"""
COMPILER = """
from anyshape.building.backends.torchscript import TorchScriptCompiler
from counting import Counting

class CountingCompiler(TorchScriptCompiler):
    def compile(self, model, example, bucket):
        assert isinstance(self.backend, Counting)
        assert self.settings == {"digits": 4}
        return super().compile(model, example, bucket)
"""


def counting_in(folder: Path, compiler: str = "counting_compiler:CountingCompiler", **handler: Any) -> Path:
    """The example, run by a backend of one's own."""
    recipe = example_in(folder, backend="counting:Counting", backend_options={"digits": 4}, **handler)
    (folder / "counting.py").write_text(BACKEND.format(compiler=compiler), encoding="utf-8")
    (folder / "counting_compiler.py").write_text(COMPILER, encoding="utf-8")
    return recipe


@pytest.mark.parametrize("compiler", ["counting_compiler:CountingCompiler", "torchscript"])
def test_a_backend_of_ones_own(
    compiler: str, tmp_path: Path, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(counting_in(tmp_path / "recipe", compiler, buckets=[2000]), tmp_path / "store")
    assert built.index.backend == "counting:Counting"
    assert built.index.versions["counting"] == "1"
    names = set(zipfile.ZipFile(built.path).namelist())
    assert {"counting.py", "audio_task.py"} <= names
    assert "counting_compiler.py" not in names
    monkeypatch.setenv("COUNTING_WORKERS", "1")
    samples = tone(440, 1234)
    answer = BucketedModel.load(built.path)(wav(samples), top_k=3)
    assert scores(answer) == pytest.approx(plain(samples), abs=2e-5)


def test_a_backend_that_names_no_compiler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'^handler\.backend: .* what builds it: give it compiler = "'):
        build(counting_in(tmp_path / "recipe", ""), tmp_path / "store")
