"""`anyshape tune` on traffic that drifts: it ends at the buckets that are best for what comes now."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from anyshape.building.planning.plan import plan_waste
from anyshape.cli.main import main
from tests.conftest import TextOf, write_recipe
from tests.server.conftest import options
from tests.server.harness import Server

BEFORE, AFTER = (6, 7, 9, 12, 13), (17, 18, 22, 23, 27)  # tokens


def optimum(lengths: Counter[int], count: int, largest: int) -> float:
    """The waste of the best `count` buckets of which one is the largest, by trying all."""
    seen = {(length,): items for length, items in lengths.items()}
    return min(
        plan_waste(seen, [*((length,) for length in chosen), (largest,)])
        for chosen in itertools.combinations(lengths, count - 1)
    )


@pytest.mark.slow
def test_drifting_traffic_ends_within_three_percent_of_the_optimum(
    operated: Server,
    encoder_folder: Path,
    text_of: TextOf,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server, draw = operated, random.Random(3)
    recipe = write_recipe(tmp_path, "tiny", task="sentence-embedding", model=str(encoder_folder))
    ask = ["tune", str(recipe), "--store", str(server.store), *options(server), "--cost", "area", "--json"]

    def send(lengths: list[int]) -> None:
        for length in lengths:
            assert server.predict_text("tiny", text_of(length)).status_code == 200

    def tune(lengths: tuple[int, ...]) -> tuple[dict[str, object], Counter[int]]:
        """Send, tune by what came since now, and go on sending while the new version is measured."""
        since = tmp_path / "since.json"
        since.write_text(server.manage("GET", "/models/tiny", customized="true").text)
        sent = [draw.choice(lengths) for _ in range(150)]
        send(sent)
        stop = threading.Event()

        def go_on() -> None:
            for length in itertools.cycle(sent):
                if stop.is_set():
                    return
                send([length])

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            assert main([*ask, "--since", str(since), "--buckets", "3", "--measure", "5"]) == 0, (
                capsys.readouterr().err
            )
        finally:
            stop.set()
            thread.join()
        return json.loads(capsys.readouterr().out.splitlines()[-1]), Counter(sent)

    (described,) = server.manage("GET", "/models/tiny").json()
    first = described["modelVersion"]
    largest = 30
    for lengths in (BEFORE, AFTER):
        found, sent = tune(lengths)
        measured = found["measured"]
        assert isinstance(measured, dict), found
        assert measured["waste_after"] <= 1.03 * optimum(sent, 3, largest), found
        assert found["planned"]["positions"] <= 1.03 * optimum(sent, 3, largest), found  # type: ignore[index]
        assert found["planned"]["buckets"][-1] == [largest]  # type: ignore[index]
        assert measured["waste_after"] < measured["waste_before"]
        (described,) = server.manage("GET", "/models/tiny").json()
        assert described["modelVersion"] == found["version"] != first
    # what does not change again is left alone
    assert main([*ask, "--buckets", "3"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert "measured" not in again
    assert again["saving"] < 0.02
    (described,) = server.manage("GET", "/models/tiny").json()
    assert described["modelVersion"] == found["version"]
