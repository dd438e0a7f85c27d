"""A task and a backend of one's own through a real server: the example of the docs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from anyshape.building.build import build
from tests.server.harness import Server
from tests.test_own_task import counting_in, scores, tone, wav

WAV = {"Content-Type": "audio/wav"}


@pytest.fixture(scope="module")
def audio(server: Server, store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    build(counting_in(tmp_path_factory.mktemp("own") / "recipe", buckets=[2000, 4000]), store)
    server.register("audio")
    return "audio"


def test_every_way_to_send_a_recording_is_the_same_question(server: Server, audio: str) -> None:
    raw = wav(tone(880, 3001))
    text = base64.b64encode(raw).decode()
    bodies: list[dict[str, Any]] = [
        {"content": raw, "headers": WAV},
        {"content": raw, "headers": {"Content-Type": "application/octet-stream"}},
        {"files": {"data": ("tone.wav", raw, "audio/wav")}},
        {"json": {"inputs": text}},
        {"json": {"inputs": f"data:audio/wav;base64,{text}"}},
    ]
    answers = []
    for body in bodies:
        response = server.predict(audio, **body)
        assert response.status_code == 200, server.explain(response)
        assert response.headers["X-Bucket"] == "4000"
        answers.append(response.json())
    assert answers[0]["label"] == "880 Hz"
    assert answers == [answers[0]] * len(bodies)


def test_a_list_with_parameters(server: Server, audio: str) -> None:
    body = {"inputs": [tone(440, 1000).tolist(), tone(0, 2001).tolist()], "parameters": {"top_k": 3}}
    response = server.predict(audio, json=body)
    assert response.status_code == 200, server.explain(response)
    assert [max(found := scores(a), key=found.get) for a in response.json()] == ["440 Hz", "noise"]
    assert response.headers["X-Bucket"].endswith(",4000")  # the short one may share its call


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"content": b"hello", "headers": WAV}, 400),
        ({"content": wav(tone(440, 4001)), "headers": WAV}, 413),
        ({"content": wav(tone(440, 100)), "headers": {"Content-Type": "image/png"}}, 415),
        ({"content": b"a tone", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"content": wav(tone(440, 100), rate=16000), "headers": WAV}, 422),
        ({"json": {"inputs": [["loud"]]}}, 422),
    ],
)
def test_what_is_no_recording_says_why(server: Server, audio: str, body: dict[str, Any], code: int) -> None:
    response = server.predict(audio, **body)
    assert response.status_code == code, server.explain(response)
    assert response.json()["code"] == code
    assert "recording" in response.json()["message"]
