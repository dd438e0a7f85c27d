"""The command as a user meets it: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from anyshape.cli.main import main
from anyshape.cli.plan import _bytes

ROOT = Path(__file__).parent.parent.parent
MRPC = str(ROOT / "tests/data/mrpc_test_token_lengths.json")
COCO = str(ROOT / "tests/data/coco_val2017_sizes.json")
KEYS = {"buckets", "waste", "alternatives", "curve", "cost"}
TOKEN = "the-management-key"
SEEN = [[[10], 600], [[30], 300], [[100], 100]]
TABLE = [
    {"bucket": [size], "batch_size": 1, "seconds": seconds}
    for size, seconds in ((64, 0.002), (128, 0.003), (256, 0.009))
]


@pytest.fixture
def plan(capsys):
    """Run `plan` with these arguments: (exit code, stdout, stderr)."""

    def plan(*arguments):
        code = main(["plan", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return plan


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


class Management(BaseHTTPRequestHandler):
    """The part of TorchServe's management API that planning reads."""

    metadata: dict = {}

    def do_GET(self):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(400, {"code": 400, "type": "InvalidKeyException"})
        if self.path != "/models/minilm?customized=true":
            return self.answer(404, {"code": 404, "type": "ModelNotFoundException"})
        return self.answer(
            200, [{"modelName": "minilm", "customizedMetadata": json.dumps(self.metadata, indent=2)}]
        )

    def answer(self, code, body):
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Management, "metadata", {"buckets": [[64], [128]], "seen": SEEN})
    with HTTPServer(("127.0.0.1", 0), Management) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_json_is_all_that_stdout_holds(tmp_path):
    command = [sys.executable, "-m", "anyshape", "plan", "--lengths", MRPC, "--field", "pair"]
    command += ["--buckets", "4", "--memory-limit", "276MB", "--bytes-per-bucket", "92MB", "--json"]
    command += ["--plot", str(tmp_path / "plan.png")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert set(answer) == KEYS
    assert answer["buckets"] == [[54], [73], [104]]
    assert answer["waste"] == pytest.approx(1.216, abs=5e-4)
    assert answer["curve"][2] == [3, answer["waste"]]
    assert answer["cost"] == "area"
    assert "cut to the best 3" in result.stderr


def test_an_error_is_one_line_on_stderr():
    command = [sys.executable, "-m", "anyshape", "plan", "--lengths", "missing.json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "missing.json" in result.stderr


def test_the_table(plan):
    code, out, _ = plan("--lengths", MRPC, "--field", "pair", "--buckets", "4")
    assert code == 0
    chosen = next(line for line in out.splitlines() if "chosen" in line and "46" in line)
    assert "46 60 74 104" in chosen
    assert "1.149" in chosen
    assert "knee" in chosen
    assert "5.5%" in chosen
    for policy in ("pad to max", "uniform", "quantile", "powers of two"):
        assert policy in out
    assert "buckets: [46, 60, 74, 104]" in out


def test_sizes_and_a_picture(plan, tmp_path):
    picture = tmp_path / "plan.png"
    code, out, _ = plan("--sizes", COCO, "--width-first", "--buckets", "4", "--json", "--plot", picture)
    assert code == 0
    assert json.loads(out)["buckets"] == [[428, 640], [481, 640], [640, 481], [640, 640]]
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_exact(plan, write):
    path = write("sizes.json", [[3, 5, 10], [5, 3, 10], [4, 4, 10], [5, 5, 1]])
    code, out, err = plan("--sizes", path, "--buckets", "2", "--exact", "--json")
    assert code == 0
    # Beside the maximum, 3x5 or 5x3 saves 10 x (25 - 15), 4x4 only 10 x (25 - 16).
    assert json.loads(out)["buckets"] in ([[3, 5], [5, 5]], [[5, 3], [5, 5]])
    assert "optimum over all sides" in err


def test_a_folder_of_pictures(plan, tmp_path):
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("text")
    code, out, err = plan("--images", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["buckets"] == [[30, 40]]
    assert "left out 1 file" in err


def test_the_cost_is_said(plan, write):
    lengths, table = write("lengths.json", [10, 60, 200]), write("costs.json", TABLE)
    for arguments, cost in (
        ([], "area"),
        (["--cost", "flops", "--hidden-size", 64], "flops"),
        (["--costs", table], "measured"),
        (["--costs", table, "--cost", "area"], "area"),
    ):
        code, out, _ = plan("--lengths", lengths, "--buckets", 2, "--json", *arguments)
        assert code == 0
        assert json.loads(out)["cost"] == cost


@pytest.mark.parametrize(("shared", "fitting"), [(0, 4), (40_000, 2)])
def test_the_memory_of_an_archive(plan, write, tmp_path, shared, fitting):
    archive = tmp_path / "x.mar"
    program = {"bucket": [64], "file": "models/all.pt", "sha256": "00", "bytes": 10_000}
    index = {
        "format": 1,
        "task": "t",
        "backend": "b",
        "dtype": "float32",
        "versions": {},
        "inputs": [],
        "batch_sizes": [1, 2],
        "dynamic_batch": False,
        "tolerance": 1e-4,
        "costs": TABLE,
        "buckets": [{**program, "batch_size": rows} for rows in (1, 2)],
    }
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("buckets.json", json.dumps(index))
        packed.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelName": "x", "modelVersion": "1.0"}}')
        packed.writestr("model-config.yaml", "handler: {}")
        packed.writestr("models/all.pt", bytes(20_000 + shared))
    lengths = write("lengths.json", [10, 60, 200, 250, 300])
    limited = ["--lengths", lengths, "--buckets", 5, "--json", "--memory-limit", "80KB", "--costs", archive]
    code, out, err = plan(*limited)
    assert code == 0
    assert len(json.loads(out)["buckets"]) == fitting
    assert json.loads(out)["cost"] == "measured"
    assert f"cut to the best {fitting}" in err
    code, _, err = plan(*limited, "--workers", 5)
    assert code == 1
    assert "--memory-limit" in err


def test_an_archive_that_is_none(plan, write, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.mar", "w") as packed:
        packed.writestr("other.json", "{}")
    (tmp_path / "cut.mar").write_bytes(b"PK\x03\x04 and no more")
    for name in ("x.mar", "cut.mar"):
        code, _, err = plan("--lengths", write("lengths.json", [10]), "--costs", tmp_path / name)
        assert code == 1
        assert "no archive" in err or "cut off" in err
        assert name in err
        assert err.count("\n") == 1


def test_inferentias_rule(plan):
    code, out, err = plan(
        "--lengths", MRPC, "--field", "pair", "--buckets", 12, "--weights", 110_000_000, "--json"
    )
    assert code == 0
    assert len(json.loads(out)["buckets"]) == 9
    assert "cut to the best 9" in err


def test_a_servers_traffic(plan, server, write):
    keys = write("key_file.json", {"management": {"key": TOKEN}, "inference": {"key": "other"}})
    code, out, _ = plan(
        "--server", server, "--model", "minilm", "--token-file", keys, "--buckets", 2, "--json"
    )
    assert code == 0
    answer = json.loads(out)
    assert set(answer) == {*KEYS, "traffic"}
    assert answer["buckets"] == [[30], [100]]
    real = 10 * 600 + 30 * 300 + 100 * 100
    present, proposed = answer["traffic"]["present"], answer["traffic"]["proposed"]
    assert present["buckets"] == [[64], [128]]
    assert present["waste"] == pytest.approx((900 * 64 + 100 * 128) / real)
    assert proposed["waste"] == pytest.approx((900 * 30 + 100 * 100) / real)
    assert answer["traffic"]["saving"] == pytest.approx(1 - 37000 / 70400)


def test_a_servers_traffic_as_a_table(plan, server, monkeypatch):
    metadata = {"buckets": [[64]], "seen": SEEN, "costs": TABLE}
    monkeypatch.setattr(Management, "metadata", metadata)
    code, out, _ = plan("--server", server, "--model", "minilm", "--token", TOKEN, "--buckets", 2)
    assert code == 0
    assert "measured seconds" in out
    assert "predicted saving in compute" in out
    assert "100 items are larger than any present bucket" in out


def test_a_server_that_pads_nothing_is_said_to(plan, server, monkeypatch):
    metadata = {"buckets": [[n] for n in range(4, 101)], "seen": SEEN}
    monkeypatch.setattr(Management, "metadata", metadata)
    code, out, err = plan("--server", server, "--model", "minilm", "--token", TOKEN, "--buckets", 2, "--json")
    assert code == 0
    assert json.loads(out)["traffic"]["present"]["positions"] == 1
    assert "note: minilm has a bucket of every length from 4 to 100 and pads nothing" in err


def test_a_plan_from_what_was_seen_since(plan, server, write):
    before = write("before.json", [{"customizedMetadata": {**Management.metadata, "seen": [[[10], 500]]}}])
    asked = ["--server", server, "--model", "minilm", "--token", TOKEN, "--buckets", "2", "--json"]
    code, out, _ = plan(*asked, "--since", before)
    assert code == 0
    assert json.loads(out)["traffic"]["items"] == 500


def test_since_is_of_a_server(plan, write):
    code, out, err = plan("--lengths", write("lengths.json", [10]), "--since", "before.json")
    assert (code, out) == (1, "")
    assert "--since needs --server" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "minilm"], "--token"),
        (["--model", "minilm", "--token", "wrong"], "--token"),
        (["--model", "other", "--token", TOKEN], "--model"),
        (["--token", TOKEN], "--model"),
    ],
)
def test_a_server_that_refuses(plan, server, arguments, message):
    code, out, err = plan("--server", server, *arguments)
    assert (code, out) == (1, "")
    assert message in err


def test_a_server_that_is_not_there(plan):
    code, _, err = plan("--server", "http://127.0.0.1:1", "--model", "minilm")
    assert code == 1
    assert "is the server running" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cost", "measured"], "--costs"),
        (["--memory-limit", "2GB"], "--bytes-per-bucket"),
        (["--bytes-per-bucket", "2GB"], "--memory-limit"),
        (["--plot", "missing/folder/plan.png"], "plan.png"),
        (["--plot", "plan.unknown"], "plan.unknown"),
        (["--costs", "missing.json"], "missing.json"),
    ],
)
def test_mistakes_are_told(plan, write, arguments, message):
    code, out, err = plan("--lengths", write("lengths.json", [10, 60]), *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--buckets", "0"],
        ["--buckets", "many"],
        ["--memory-limit", "2XB"],
        ["--memory-limit", "0"],
        ["--align", "0"],
        ["--weights", "0"],
        ["--workers", "0"],
    ],
)
def test_arguments_that_cannot_be(plan, arguments):
    with pytest.raises(SystemExit) as stopped:
        plan("--lengths", MRPC, *arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2_000_000_000), ("1.5 GiB", 1_610_612_736), ("512MiB", 536_870_912), ("10kb", 10_000), ("7", 7)],
)
def test_sizes_of_memory(text, size):
    assert _bytes(text) == size


# Rows of whole texts


def test_rows_of_whole_texts_are_planned_beside_buckets_of_one_text_each(plan):
    code, out, err = plan(
        "--lengths", MRPC, "--field", "pair", "--layout", "rows", "--weights", 110_000_000, "--json"
    )
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["limit"] == 9  # programs of BERT base on a core of Inf1
    best, *others = answer["plans"]
    assert best["layout"] == "rows"
    assert all(p["programs"] == 2 * len(p["lengths"]) <= 9 for p in answer["plans"])
    assert all(p["lengths"][-1] >= 104 for p in answer["plans"])  # the longest text
    items = [p for p in others if p["layout"] == "items"]
    assert max(len(p["lengths"]) for p in items) == 4
    assert best["waste"]["32"] < min(p["waste"]["32"] for p in items)
    assert best["waste"]["32"] <= 1.01 * min(p["waste"]["32"] for p in answer["plans"])


def test_a_depth_and_batch_sizes_of_ones_own(plan, write):
    path = write("lengths.json", [10, 20, 60])
    arguments = ("--layout", "rows", "--depth", 5, "--batch-sizes", "4", "--buckets", 1, "--align", 60)
    code, out, _ = plan("--lengths", path, *arguments)
    assert code == 0
    assert "layout: rows, segments: 32, buckets: [60], batch_sizes: [4]" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sizes", COCO), "rows is for texts"),
        (("--lengths", MRPC, "--field", "pair", "--exact"), "leave out --plot"),
        (("--lengths", MRPC, "--field", "pair", "--weights", 2_000_000_000), "list fewer"),
    ],
)
def test_rows_that_cannot_be_planned(plan, arguments, said):
    code, out, err = plan(*arguments, "--layout", "rows")
    assert (code, out) == (1, "")
    assert said in err
