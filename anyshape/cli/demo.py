"""`anyshape demo`: texts of many lengths to a running server, and what became of each."""

from __future__ import annotations

import argparse
import http.client
import json
import pydoc_data.topics
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from anyshape.server.checks import ServeError, read_properties
from anyshape.server.config import usual_config

HELP = """\
Send texts of many lengths to a running server and show tokens, bucket, padding and milliseconds of each.
Run `make serve` (or `anyshape serve`) first, in another terminal. Each text is sent alone, several times
over one connection; the time is the median round trip.

  anyshape demo --model minilm
"""
WORDS = (1, 4, 10, 20, 40, 55, 80, 112, 160, 220, 300, 340, 1000)
REPEATS = 5


def texts() -> Iterator[str]:
    """English prose of each number of words in WORDS, from Python's own documentation."""
    prose = " ".join(pydoc_data.topics.topics[name] for name in ("execmodel", "types", "compound"))
    words = [word for word in prose.split() if word.isalpha()]
    start = 0
    for count in WORDS:
        yield " ".join(words[start : start + count])
        start += count


class Client:
    """One kept-alive connection that asks one model."""

    def __init__(self, address: str, model: str, token: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        self.path = f"/predictions/{model}"
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"}

    def ask(self, text: str) -> tuple[http.client.HTTPResponse, bytes, float]:
        """The response, its body, and the round trip in milliseconds."""
        started = time.perf_counter()
        self.connection.request("POST", self.path, text.encode(), self.headers)
        response = self.connection.getresponse()
        body = response.read()
        return response, body, 1000 * (time.perf_counter() - started)


def padding_ratio(response: http.client.HTTPResponse) -> float:
    """Positions that the model ran for each one that the text has; 1 is no padding at all."""
    return float(response.headers["X-Padding-Ratio"])


def tokens_of(response: http.client.HTTPResponse) -> str:
    """Real tokens of a text that went alone: the bucket without its padding."""
    try:
        return str(round(int(response.headers["X-Bucket"]) / padding_ratio(response)))
    except (TypeError, ValueError):
        return "-"


def problem_of(body: bytes) -> str:
    """What an error's body says, in a line."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="minilm", help="the model to ask (default: minilm)")
    parser.add_argument("--config", type=Path, help="the server's settings (default: as anyshape serve)")
    parser.add_argument("--run", dest="run_folder", type=Path, default=Path("run"), help="where its keys are")


def run(args: argparse.Namespace) -> int:
    """Print the table. Raises ServeError if no server answers."""
    address = read_properties(args.config or usual_config()).get("inference_address", "http://127.0.0.1:8080")
    try:
        keys = json.loads((args.run_folder / "key_file.json").read_text(encoding="utf-8"))
        client = Client(address, args.model, keys["inference"]["key"])
        table = Table(title=f"{args.model} at {address}, one text at a time")
        for heading in ("words", "tokens", "bucket", "padding", "ms"):
            table.add_column(heading, justify="right")
        table.add_column("answer")
        for text in texts():
            times = []
            for _ in range(REPEATS):
                response, body, milliseconds = client.ask(text)
                times.append(milliseconds)
            table.add_row(
                str(len(text.split())),
                tokens_of(response),
                response.headers.get("X-Bucket", "-"),
                f"{1 - 1 / padding_ratio(response):.0%}" if response.status == 200 else "-",
                f"{statistics.median(times):.1f}",
                f"{len(body):,} bytes" if response.status == 200 else problem_of(body),
                style=None if response.status == 200 else "yellow",
            )
    except (OSError, http.client.HTTPException) as error:
        raise ServeError(f"no server answers at {address} ({error}): run `make serve`") from None
    Console().print(table)
    return 0
