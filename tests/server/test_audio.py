"""Recordings through a real server: WAV, FLAC and JSON, and each bad one its own refusal."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.image_models import built
from tests.server.harness import Server
from tests.tasks.test_audio import GOOD, RATE, bomb, expected_of, file_of, scores, sound

FLAC = file_of((sound(1500) * 20000).astype("int16"), "FLAC", "PCM_16")


@pytest.fixture(scope="module")
def sounds(server: Server, store: Path) -> str:
    model = {"task": "audio-classification", "model": "tests.audio_models:waves", "buckets": [2000, 4000]}
    built(store, "sounds", **model)
    server.register("sounds")
    return "sounds"


def test_wav_flac_and_json_are_answered_as_by_the_plain_model(server: Server, sounds: str) -> None:
    integers = (sound(1500) * 20000).astype("int16").astype("float32") / 32768
    text = base64.b64encode(GOOD).decode()
    numbers = {"array": sound(3000).tolist(), "sampling_rate": RATE}
    wav, flac = expected_of("waves", sound(3000)), expected_of("waves", integers)
    bodies: list[tuple[dict[str, Any], Any]] = [
        ({"content": GOOD, "headers": {"Content-Type": "audio/wav"}}, wav),
        ({"content": FLAC, "headers": {"Content-Type": "audio/flac"}}, flac),
        ({"content": FLAC, "headers": {"Content-Type": "application/octet-stream"}}, flac),
        ({"files": {"data": ("bark.flac", FLAC, "audio/flac")}}, flac),
        ({"json": {"inputs": text}}, wav),
        ({"json": {"inputs": f"data:audio/wav;base64,{text}"}}, wav),
        ({"json": {"inputs": numbers}}, wav),
        ({"json": {"inputs": [numbers["array"], text], "parameters": {"top_k": 4}}}, [wav, wav]),
    ]
    responses = server.predict_all(sounds, [body for body, _ in bodies])
    for response, (_, expected) in zip(responses, bodies):
        assert response.status_code == 200, server.explain(response)
        answers, wanted = response.json(), expected
        if not isinstance(expected, list):
            answers, wanted = [answers], [expected]
        for answer, one in zip(answers, wanted):
            assert scores(answer) == pytest.approx(one, abs=2e-5)
        assert set(response.headers["X-Bucket"].split(",")) <= {"2000", "4000"}


BROKEN: dict[str, tuple[dict[str, Any], int]] = {
    "cut off": ({"content": GOOD[:5000], "headers": {"Content-Type": "audio/wav"}}, 400),
    "words": ({"content": b"bark", "headers": {"Content-Type": "audio/flac"}}, 400),
    "a bomb": ({"content": bomb(9_000_000), "headers": {"Content-Type": "audio/flac"}}, 413),
    "a picture": ({"content": GOOD, "headers": {"Content-Type": "image/png"}}, 415),
    "a text": ({"content": b"bark", "headers": {"Content-Type": "text/plain"}}, 415),
    "another rate": ({"json": {"inputs": {"array": [0.1], "sampling_rate": 44100}}}, 422),
}


def test_a_bad_recording_costs_its_own_request_alone(server: Server, sounds: str) -> None:
    bodies = [body for body, _ in BROKEN.values()]
    good: dict[str, Any] = {"content": GOOD, "headers": {"Content-Type": "audio/wav"}}
    *bad, answered = server.predict_all(sounds, [*bodies, good])
    for response, (name, (_, code)) in zip(bad, BROKEN.items()):
        assert response.status_code == code, (name, response.text)
        assert response.json()["code"] == code
    assert answered.status_code == 200, server.explain(answered)
