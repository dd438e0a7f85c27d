"""Every face of an archive, asked the same inputs: the answer to each, or its error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from anyshape.errors import Refused
from anyshape.model import BucketedModel
from tests.conftest import ROOT
from tests.faces.cases import JSON, TEXT, Case

AT_ONCE = 16
OK = 200


@dataclass(frozen=True)
class Told:
    """What came of one input. `kind`: the error's type; None where a face's words have none."""

    code: int
    answer: Any = None
    kind: str | None = None
    message: str = ""

    @property
    def why(self) -> str:
        """The message without which of several inputs it is about, and without how to ask otherwise there."""
        return re.sub(r"^inputs\[0\]: |, or (send|score with) .*$", "", self.message)


Ask = Callable[[list[Any]], list[Told]]


def over_http(url: str, headers: dict[str, str]) -> Ask:
    """In this project's own words: texts as they are and in JSON by turns, everything else in JSON."""

    def ask(client: httpx.Client, numbered: tuple[int, Any]) -> Told:
        number, value = numbered
        many = isinstance(value, list)  # a list would be several inputs
        body, kind = json.dumps({"inputs": [value] if many else value}).encode(), JSON
        if isinstance(value, str) and number % 2:
            with suppress(UnicodeEncodeError):
                body, kind = value.encode(), TEXT
        response = client.post(url, content=body, headers={**headers, "Content-Type": kind})
        said = response.json()
        if response.status_code == OK:
            return Told(OK, said[0] if many else said)
        assert said["code"] == response.status_code
        return Told(said["code"], None, said["type"], said["message"])

    return lambda values: at_once(ask, list(enumerate(values)))


def over_kserve(url: str) -> Ask:
    """In the words of version 1 of KServe's protocol, whose errors have no type."""

    def ask(client: httpx.Client, value: Any) -> Told:
        body = json.dumps({"instances": [value]})
        response = client.post(url, content=body, headers={"Content-Type": JSON})
        if response.status_code == OK:
            (answer,) = response.json()["predictions"]
            return Told(OK, answer)
        return Told(response.status_code, None, None, response.json()["error"])

    return lambda values: at_once(ask, values)


def at_once(ask: Callable[[httpx.Client, Any], Told], values: list[Any]) -> list[Told]:
    with httpx.Client(timeout=120, trust_env=False) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(ask, client), values))


def over_ray_data(archive: Path, folder: Path) -> Ask:
    """As rows of a file, scored by two actors of Ray Data."""

    def ask(values: list[Any]) -> list[Told]:
        from pyarrow import parquet

        rows = folder / "rows.jsonl"
        rows.write_text("\n".join(json.dumps({"text": value}) for value in values), encoding="utf-8")
        command = [sys.executable, "-m", "anyshape", "score", "--archive", str(archive), "--json"]
        command += ["--input", str(rows), "--output", str(folder / "out"), "--rows", "64", "--actors", "2"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        found = parquet.read_table(folder / "out").to_pylist()
        assert [row["row"] for row in found] == list(range(len(values)))
        return [Told(r["status"], r["answer"], r["error"], r["message"] or "") for r in found]

    return ask


def in_python(archive: Path) -> Ask:
    """By the library alone: lists of inputs, and one by one where one of a list is refused."""

    def ask(values: list[Any]) -> list[Told]:
        try:
            return [Told(OK, answer) for answer in model(values)]
        except Refused as error:
            if len(values) == 1:
                return [Told(error.code, None, type(error).__name__, str(error))]
        return [told for value in values for told in ask([value])]

    model = BucketedModel.load(archive)
    return lambda values: [told for i in range(0, len(values), 20) for told in ask(values[i : i + 20])]


def has_half_a_pair(value: Any) -> bool:
    """Whether a text in it has half of a surrogate pair, which JSON can say and UTF-8 cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def send(base: str, headers: dict[str, str], case: Case) -> tuple[int, Any]:
    """The status of a case, and what its error says of its kind in the words of its path."""
    url = f"{base}/1.0/{case.path}" if case.path else base
    response = httpx.post(
        url, content=case.body, headers={**headers, "Content-Type": case.content_type}, timeout=120
    )
    return response.status_code, kind_of(response.json())


def kind_of(body: Any) -> Any:
    """An error without its message: of OpenAI's its type and code, of KServe's nothing but its shape."""
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, dict):
        return {key: error.get(key) for key in ("type", "code", "param")}
    return {key: None if key in ("message", "error") else body[key] for key in sorted(body)}
