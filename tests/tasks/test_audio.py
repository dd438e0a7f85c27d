"""Recordings of any length: answered as by the plain model alone, or refused with the reason."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch

from anyshape.errors import BadRequest, ConfigError, InputTooLarge, UnprocessableInput
from anyshape.model import BucketedModel
from tests import audio_models
from tests.image_models import engine

RATE, BUCKETS = 8000, [2000, 4800, 8000]


pytestmark = pytest.mark.usefixtures("one_thread")


def sound(count: int, seed: int = 0) -> Any:
    """Tones in noise, float32 [count]."""
    draw = np.random.default_rng([count, seed])
    time = np.arange(count) / RATE
    tones = sum(np.sin(2 * np.pi * pitch * time) for pitch in draw.uniform(80, 3000, 3))
    return (0.2 * tones + 0.05 * draw.normal(size=count)).astype(np.float32)


def file_of(samples: Any, format: str = "WAV", subtype: str = "FLOAT", rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def archive(folder: Path, name: str, **handler: Any) -> BucketedModel:
    settings = {"task": "audio-classification", "buckets": BUCKETS, **handler}
    return engine(folder, name, model=f"tests.audio_models:{name}", **settings)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BucketedModel]:
    folder = tmp_path_factory.mktemp("audio")
    return {name: archive(folder, name) for name in ("waves", "spectra")}


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> BucketedModel:
    options = {"resample": True}
    folder = tmp_path_factory.mktemp("lenient")
    return archive(folder, "waves", over_max="truncate", buckets=[4000], task_options=options)


def expected_of(name: str, samples: Any) -> dict[str, float]:
    """What the plain model says to one unpadded waveform."""
    model: Any = getattr(audio_models, name)()
    if name == "spectra":
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    waveform = torch.from_numpy(samples)[None]
    with torch.no_grad():
        (row,) = model(waveform[:, None] if name == "waves" else waveform).softmax(1)
    return dict(zip(model.labels, row.tolist()))


def scores(answer: Any) -> dict[str, float]:
    assert [entry["score"] for entry in answer] == sorted((e["score"] for e in answer), reverse=True)
    return {entry["label"]: entry["score"] for entry in answer}


@pytest.mark.parametrize("name", ["waves", "spectra"])
def test_recordings_of_any_length_are_answered_as_by_the_plain_model(
    name: str, archives: dict[str, BucketedModel]
) -> None:
    draw = random.Random(4)
    lengths = [100, 1999, 2000, 2001, 4800, 4801, 7999, 8000, *(draw.randint(70, 8000) for _ in range(20))]
    sent = [sound(count, seed) for seed, count in enumerate(lengths)]
    model = archives[name]
    together = model([file_of(samples) for samples in sent])
    seen = set()
    for samples, answer in zip(sent, together):
        expected = expected_of(name, samples)
        assert scores(answer) == pytest.approx(expected, abs=2e-5), len(samples)
        seen.add(round(max(expected.values()), 4))
    assert len(seen) > 10, "the answers hardly differ: this says nothing"


def test_wav_flac_base64_and_numbers_are_the_same_question(archives: dict[str, BucketedModel]) -> None:
    counts = np.round(sound(3000) * 32767 / 2).astype(np.int16)
    expected = expected_of("waves", counts.astype(np.float32) / 32768)
    bodies: list[Any] = [
        file_of(counts, "WAV", "PCM_16"),
        file_of(counts, "FLAC", "PCM_16"),
        file_of(counts, "RF64", "PCM_16"),
        file_of(np.stack([counts, counts], 1), "FLAC", "PCM_16"),
        (counts / 32768).tolist(),
        {"array": (counts / 32768).tolist(), "sampling_rate": RATE},
        {"raw": (counts / 32768).tolist()},
    ]
    for body in bodies:
        assert scores(archives["waves"]([body])[0]) == pytest.approx(expected, abs=2e-5)


def test_channels_are_averaged(archives: dict[str, BucketedModel]) -> None:
    left, right = sound(2500, 1), sound(2500, 2)
    found = scores(archives["waves"](file_of(np.stack([left, right], 1))))
    assert found == pytest.approx(expected_of("waves", (left + right) / 2), abs=2e-5)


def bomb(count: int) -> bytes:
    """A FLAC of silence, a few hundred bytes a minute."""
    return file_of(np.zeros(count, np.int16), "FLAC", "PCM_16")


def header_says(raw: bytes, frames: int) -> bytes:
    """A FLAC whose header says another length: the last 36 bits before its checksum."""
    at = 4 + 4 + 13
    high = (raw[at] & 0xF0) | (frames >> 32)
    return raw[:at] + bytes([high]) + struct.pack(">I", frames & 0xFFFFFFFF) + raw[at + 5 :]


GOOD = file_of(sound(3000))
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "not a recording": (b"hello, this is text", BadRequest, "known formats: WAV and FLAC"),
    "MP3": (b"ID3\x04" + bytes(400), BadRequest, "known formats"),
    "cut off": (GOOD[: len(GOOD) // 2], BadRequest, "cut off|damaged"),
    "a header alone": (GOOD[:40], BadRequest, "recording"),
    "another rate": (file_of(sound(900), rate=44100), UnprocessableInput, "44100 samples a second.*resample"),
    "too long": (file_of(sound(8001)), InputTooLarge, "8001 samples.*takes 8000.*at most 1 seconds"),
    "a bomb": (bomb(50_000_000), InputTooLarge, "50000000 samples"),
    "a bomb that hides": (header_says(bomb(3_000_000), 0), InputTooLarge, "more than 8000"),
    "empty": (file_of(sound(0)), UnprocessableInput, "no samples"),
    "too short for the model": (file_of(sound(5)), UnprocessableInput, "no such length.*nearest"),
    "not numbers": (file_of(np.full(3000, np.nan, np.float32)), UnprocessableInput, "NaN"),
    "nine channels": (file_of(np.zeros((100, 9), np.float32)), UnprocessableInput, "9 channels"),
    "words in a list": (["a", "b"], UnprocessableInput, "numbers alone"),
    "infinite": ([1e300] * 3000, UnprocessableInput, "too large"),
    "a number": (7, UnprocessableInput, "base64"),
    "a strange object": ({"samples": [0.1]}, UnprocessableInput, '"array"'),
    "a rate in words": ({"array": [0.1], "sampling_rate": "8k"}, UnprocessableInput, "whole number"),
    "a list that is too long": ([0.0] * 8001, InputTooLarge, "8001 samples"),
}  # type: ignore[assignment]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_recording_is_refused_and_its_neighbours_answered(
    name: str, archives: dict[str, BucketedModel]
) -> None:
    value, kind, says = REFUSED[name]
    model = archives["spectra" if name == "too short for the model" else "waves"]
    read = model.task.read([GOOD, value, GOOD], [{}] * 3)
    first, bad, last = model.run(read)
    with pytest.raises(kind, match=says):
        raise bad  # type: ignore[misc]
    assert model.answer(read[0], first, {}) == model.answer(read[2], last, {})


def test_other_rates_are_resampled_where_the_recipe_says_so(lenient: BucketedModel) -> None:
    time = np.arange(16000) / 44100
    samples = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    raw = file_of(samples, rate=44100)
    (item,) = lenient.task.read([raw], [{}])
    assert item.changed == "resampled 44100 to 8000 samples a second"
    expected = expected_of("waves", soxr.resample(samples, 44100, 8000, quality="HQ"))
    assert scores(lenient(raw)) == pytest.approx(expected, abs=1e-4)
    pitch = np.abs(np.fft.rfft(item.data["input_values"])).argmax() * 8000 / item.size[0]
    assert pitch == pytest.approx(440, abs=3)


def test_what_is_too_long_is_cut_and_said_so(lenient: BucketedModel) -> None:
    samples = sound(9000)
    (item,) = lenient.task.read([file_of(samples)], [{}])
    assert item.changed == "9000 samples to 4000"
    assert scores(lenient(file_of(samples))) == pytest.approx(expected_of("waves", samples[:4000]), abs=1e-4)
    both = file_of(np.tile(samples, 9), "FLAC", "PCM_16", rate=16000)
    (item,) = lenient.task.read([both], [{}])
    assert item.changed == "resampled 16000 to 8000 samples a second; 40500 samples to 4000"
    (item,) = lenient.task.read([bomb(100_000_000)], [{}])
    assert item.size == (4000,)


def test_parameters(archives: dict[str, BucketedModel]) -> None:
    model = archives["waves"]
    assert [a["label"] for a in model(GOOD, top_k=2)] == [a["label"] for a in model(GOOD)][:2]
    assert sum(a["score"] for a in model(GOOD)) == pytest.approx(1)
    assert model(GOOD, function_to_apply="none")[0]["score"] != model(GOOD)[0]["score"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("nameless", {}, "sampling_rate is missing"),
        ("waves", {"sampling_rate": "fast"}, "sampling_rate must be a whole number"),
        ("waves", {"resample": 1}, "resample must be true or false"),
        ("frames", {}, "a position for each moment|not a row of logits"),
        ("lasting", {}, "rnn_tanh"),
        ("louder", {}, "mul .*math.sqrt"),  # it is right for the lengths that the build compares
    ],
)
def test_what_cannot_be_built_is_refused_by_name(
    tmp_path: Path, name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        archive(tmp_path, name, task_options=options, buckets=[2000])


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_wav2vec2_answers_as_the_pipeline(norm: str, tmp_path: Path) -> None:
    """With `group` its first norm is over all of time, and Hugging Face's padded batches are not exact."""
    from transformers import (
        AudioClassificationPipeline,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
    )

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (8, 8, 8), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3)}
    places = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8}
    names = dict(enumerate(["up", "down", "left", "right", "stop", "go"]))
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        **sizes,
        **convolutions,
        **places,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        initializer_range=0.3,
        id2label=names,
    )
    plain = Wav2Vec2ForSequenceClassification(config).eval()
    folder = tmp_path / "model"
    plain.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True)
    extractor.save_pretrained(folder)
    model = engine(
        tmp_path,
        "words",
        task="audio-classification",
        model=str(folder),
        buckets=[2000, 4000],
        tolerance=2e-4,
    )
    pipeline = AudioClassificationPipeline(model=plain, feature_extractor=extractor)
    for seed, count in enumerate([301, 1999, 2001, 3137, 4000]):
        samples = sound(count, seed)
        expected = pipeline(samples, top_k=6)
        found = model(file_of(samples, rate=16000), top_k=6)
        assert scores(found) == pytest.approx(scores(expected), abs=1e-4)
