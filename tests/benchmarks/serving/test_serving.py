from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

for package in ("httptools", "uvloop", "orjson", "psutil", "matplotlib"):
    pytest.importorskip(package, reason="pip install -r requirements/bench.txt")

from benchmarks.serving import figures, serving, systems  # noqa: E402
from benchmarks.serving.systems.torchserve import counted  # noqa: E402
from benchmarks.studies import gemm  # noqa: E402


def row(system: str, rate: float, **more: object) -> dict[str, object]:
    return {
        "system": system,
        "workload": "short",
        "connections": 32,
        "requests_per_second": rate,
        "p50_ms": 10.0,
        "p99_ms": 20.0,
        "wrong": 0,
        "errors": 1,
        "answers": 100,
        **more,
    }


def test_names_may_carry_settings():
    names = serving.split_names("eager,openvino@workers=1,threads=2,onnx")
    assert names == ["eager", "openvino@workers=1,threads=2", "onnx"]
    tuned = systems.find(names[1])
    assert (tuned.workers, tuned.threads) == (1, 2)
    assert tuned.name == "openvino@workers=1,threads=2"


def test_an_unknown_system_or_setting_is_refused():
    with pytest.raises(KeyError):
        systems.find("eagre")
    with pytest.raises(ValueError, match="unknown setting nodes: choose from workers"):
        systems.find("eager@nodes=3")


def test_medians_ranges_and_sums_over_rounds():
    rows = [row("a", rate) for rate in (10.0, 30.0, 20.0)] + [row("b", 25.0)]
    best, second = serving.summarise(rows)
    assert (best["system"], best["requests_per_second"]) == ("b", 25.0)
    assert second["requests_per_second"] == 20.0
    assert second["requests_per_second_range"] == [10.0, 30.0]
    assert (second["errors"], second["answers"], second["rounds"]) == (3, 300, 3)


def test_padding_that_is_known_from_how_a_system_pads():
    assert systems.SYSTEMS["traced-512"].padding_ratio((64,)) == 8
    assert systems.SYSTEMS["first-fit"].padding_ratio((65,)) == pytest.approx(128 / 65)
    assert systems.SYSTEMS["eager"].padding_ratio((65,)) == 1
    assert systems.SYSTEMS["image-traced-640"].padding_ratio((320, 640)) == 2


def test_only_marked_tables_with_figures_are_replaced():
    text = "Before\n<!-- table a -->\nold\n<!-- end -->\nwords\n<!-- table b -->\nkept\n<!-- end -->\n"
    new = figures.replace_tables(text, {"a": "| x |"})
    assert new == text.replace("old", "| x |")


def test_a_table_marks_ours_and_shows_what_was_not_measured():
    rows = serving.summarise([row("bucketed-torchscript", 50.4, half_p50_ms=1.0, half_p99_ms=2.6)])
    table = figures.serving_table(rows).splitlines()
    assert table[2] == "| **`bucketed-torchscript`** | 50 | 50 to 50 | 10 / 20 | 1 / 3 | – | 0 | 1 |"


def test_operations_of_one_text():
    """BERT with 6 layers of width 384: 21.2 million operations a token in the linear layers."""
    assert gemm.minilm_flops(1) == 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536) + 4 * 6 * 384
    assert gemm.minilm_flops(512) > 512 * gemm.minilm_flops(1)


def test_figures_fill_the_page_and_draw_the_pictures(tmp_path, monkeypatch):
    rows = serving.summarise([row("bucketed-torchscript", 50.0), row("eager", 20.0, memory_mb=812.0)])
    for made in rows:
        made.update({"workers": 2, "threads": 1, "batch_size": 8})
    options = {"rounds": 1, "seconds": 2.0, "connections": 32, "items": 8, "seed": 0}
    about = {"date": "2000-01-01", "machine": "m", "cores": 2, "gemm_gflops": {}, "options": options}
    sweep = {"over": "connections", "rows": [{**rows[0], "connections": n} for n in (1, 2)]}
    files = {"latest": rows, "run": about, "sweep-connections": sweep}
    files |= {"amx/latest": rows, "amx/run": {**about, "machine": "another"}}
    (tmp_path / "amx").mkdir()
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    page = tmp_path / "page.md"
    names = ("run", "short", "short-cost", "sweep-connections", "amx-run", "amx-short")
    page.write_text("\n".join(f"<!-- table {name} -->\n<!-- end -->" for name in names))
    figures.update(page, tmp_path / "images")
    text = page.read_text()
    assert "| **`bucketed-torchscript`** | 50 |" in text
    assert "| `eager` | 2 × 1 | 8 | – |" in text
    assert "| 27.8 | 812 |" in text  # two cores, 20 a second
    assert "| machine | another, 2 cores |" in text
    assert text.count("| **`bucketed-torchscript`** | 50 |") == 2
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "bench-short.png",
        "bench-amx-short.png",
        "bench-sweep-connections.png",
    }


METRICS = b"""# TYPE anyshape_stage_seconds_total counter
anyshape_stage_seconds_total{stage="read",model_name="model",} 0.125
anyshape_stage_seconds_total{stage="run",model_name="model",} 1.5
anyshape_stage_seconds_total{stage="answer",model_name="model",} 0.125
anyshape_items_total{bucket="16",model_name="model",} 30.0
anyshape_items_total{bucket="32",model_name="model",} 20.0
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [(METRICS, {"model_seconds": 1.5, "handler_seconds": 0.25, "items": 50.0}), (b"", None)],
)
def test_what_the_handler_counts_is_read_from_the_servers_metrics(said, expected):
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert counted(server.server_port) == expected
