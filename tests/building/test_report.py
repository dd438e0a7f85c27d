"""The report of small archives: what it says, that it needs nothing else, how a browser shows it."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from anyshape.building.planning.inputs import read_lengths, read_sizes
from anyshape.building.planning.plan import make_plan
from anyshape.cli import report as command
from anyshape.errors import ConfigError

DATA = Path(__file__).parent.parent / "data"
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


def index(buckets, plan=None, costs=True):
    return {
        "format": 1,
        "task": "sentence-embedding",
        "backend": "torchscript",
        "dtype": "float32",
        "versions": {"torch": "2.13.0"},
        "inputs": [{"name": "input_ids", "dtype": "int64"}],
        "batch_sizes": [1, 8],
        "dynamic_batch": False,
        "tolerance": 1e-4,
        "weights": 22_713_216,
        "buckets": [
            {
                "bucket": list(bucket),
                "batch_size": None,
                "file": "models/<buckets>.pt",
                "sha256": "0" * 64,
                "deviation": 3e-7 * (place + 1),
                "compile_seconds": 1.25,
                "bytes": 123_456,
            }
            for place, bucket in enumerate(buckets)
        ],
        "costs": [
            {"bucket": list(bucket), "batch_size": rows, "seconds": 0.001 * (place + 1) * rows**0.8}
            for place, bucket in enumerate(buckets)
            for rows in (1, 8)
        ]
        if costs
        else [],
        "plan": plan.to_json() if plan else None,
    }


@pytest.fixture(scope="module")
def lengths_plan():
    return make_plan(read_lengths(DATA / "mrpc_test_token_lengths.json", field="pair"), 4)


@pytest.fixture
def report(tmp_path):
    """Pack an archive with this buckets.json, run `report`, and return the page's path."""

    def report(content):
        archive, page = tmp_path / "x.mar", tmp_path / "report.html"
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("buckets.json", json.dumps(content))
            manifest = {"model": {"modelName": "mini<lm>", "modelVersion": "1.0"}}
            packed.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
            packed.writestr("model-config.yaml", "handler:\n  task: sentence-embedding  # <b>\n")
        run(archive, "-o", page)
        return page

    return report


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args([*map(str, arguments)])) == 0


class Seen(HTMLParser):
    """The text of a page, its tags, and every address that it refers to."""

    def __init__(self, content):
        super().__init__()
        self.text, self.open, self.addresses = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    content = page.read_text(encoding="utf-8")
    seen = Seen(content)
    assert seen.open == []
    return content, " ".join(" ".join(seen.text).split()), seen.addresses


def test_what_the_page_says(report, lengths_plan):
    _, text, _ = read(report(index(lengths_plan.buckets, lengths_plan)))
    for said in (
        "mini<lm>",
        "version 1.0",
        "sentence-embedding",
        "torchscript",
        "22,713,216",
        "torch 2.13.0",
    ):
        assert said in text
    assert "104 any 1.2e-06 1.2 s 0.1 MB models/<buckets>.pt" in text
    assert "104 4.00 21.11" in text  # milliseconds at 1 and 8 rows
    assert "this plan 1.149" in text
    assert "pad to max 1.963 41.5%" in text
    assert "1,725 items" in text
    assert "# <b>" in text


def test_the_page_needs_nothing_else(report, lengths_plan):
    content, _, addresses = read(report(index(lengths_plan.buckets, lengths_plan)))
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "<script" not in content
    assert not re.search(r"url\((?!#)|@import", content)


def test_whatever_an_archive_says_is_text(report, lengths_plan):
    mark = "<script>alert('x')</script>"
    content = index(lengths_plan.buckets, lengths_plan)
    content.update(
        task=mark, backend=mark, dtype=mark, versions={mark: mark}, inputs=[{"name": mark, "dtype": mark}]
    )
    content["plan"] = {**content["plan"], "cost": mark, "alternatives": {mark: 2.0}}
    content["buckets"][0]["file"] = mark
    page, text, _ = read(report(content))
    assert "<script" not in page
    assert text.count(mark) >= 8


def test_an_archive_without_plan_and_costs(report):
    _, text, _ = read(report(index([(64,), (128,)], costs=False)))
    assert "Not measured when this was built" in text
    assert "not planned from data" in text


def test_a_deviation_above_the_tolerance_stands_out(report):
    content = index([(64,)])
    content["buckets"][0]["deviation"] = 2e-3
    page, _, _ = read(report(content))
    assert '<td class="bad">2.0e-03</td>' in page


def test_archives_that_cannot_be_read(report, tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        run(tmp_path / "missing.mar")
    (tmp_path / "broken.mar").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match=r"broken\.mar is cut off or damaged"):
        run(tmp_path / "broken.mar")
    for missing in ("task", "tolerance", "buckets"):
        content = index([(64,)])
        del content[missing]
        with pytest.raises(ConfigError, match="build the archive again"):
            report(content)


def test_a_place_that_cannot_be_written(report, tmp_path):
    report(index([(64,)]))
    with pytest.raises(ConfigError, match="cannot write"):
        run(tmp_path / "x.mar", "-o", tmp_path / "missing" / "report.html")


def browse(page, *options, timeout=120):
    """Open the page in headless Chromium without a network; returns what it wrote."""
    if CHROMIUM is None:
        pytest.skip("Chromium is absent: apt-get install chromium, then make test-browser")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--enable-logging=stderr", "--v=0"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-dev-shm-usage", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)


MEASURE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, svg") &&
    e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
  const picture = document.querySelector("figure svg").getBoundingClientRect();
  document.title = JSON.stringify({wide, scroll: document.documentElement.scrollWidth, inner: innerWidth,
    picture: [picture.width, picture.height], paper: getComputedStyle(document.body).backgroundColor});
});</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [500, 1200])
@pytest.mark.parametrize("kind", ["lengths", "sizes"])
def test_layout_in_a_browser(report, lengths_plan, width, kind):
    plan = lengths_plan
    if kind == "sizes":
        plan = make_plan(read_sizes(DATA / "coco_val2017_sizes.json", width_first=True), 4, align=32)
    page = report(index(plan.buckets, plan))
    measured = page.with_name("measured.html")
    measured.write_text(page.read_text().replace("</body>", f"{MEASURE}</body>"))
    result = browse(measured, f"--window-size={width},2000", "--dump-dom")
    found = json.loads(re.search(r"<title>(.*?)</title>", result.stdout).group(1).replace("&quot;", '"'))
    assert found["wide"] == []
    assert found["scroll"] <= found["inner"]
    assert found["picture"][0] > 0.8 * min(width, 992) - 80
    assert found["picture"][1] > found["picture"][0] / 4
    assert "CONSOLE" not in result.stderr


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark_in_a_browser(report, lengths_plan, theme):
    page = report(index(lengths_plan.buckets, lengths_plan))
    picture = page.with_name("page.png")
    dark = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    browse(page, "--window-size=1200,1600", f"--screenshot={picture}", *dark)
    with Image.open(picture) as shot:
        corner = shot.convert("L").getpixel((2, 2))
    assert corner < 60 if theme == "dark" else corner > 240
