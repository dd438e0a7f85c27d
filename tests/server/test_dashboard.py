"""The dashboard's queries and the alerts, against what a live server publishes and by Prometheus itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from anyshape.server.ports import free_ports
from anyshape.server.scrape import Scrape
from tests.conftest import ROOT, TextOf
from tests.server.front_alone import FrontAlone
from tests.server.harness import Server

FOLDER = ROOT / "docs" / "examples" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = [rule for g in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in g["rules"]]
QUERIES = {
    f"{panel['title']}/{target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
OF_PROMETHEUS = {"up"}  # what a scrape adds
ON_DEMAND = {"Requests5XX"}  # what TorchServe publishes from the first such answer on


def send(server: Server, text_of: TextOf) -> None:
    """Requests of many kinds, some through a proxy that says when they came, some refused or cut."""
    for length in (3, 8, 20, 30, 99):
        for _ in range(3):
            server.predict_text("tiny", text_of(length))
            started = {"X-Request-Start": f"t={time.time() - 0.1:.3f}", "Content-Type": "text/plain"}
            server.predict("tiny", content=text_of(length), headers=started)
    cut = {"inputs": text_of(60), "parameters": {"truncation": True}}
    assert server.predict("tiny", json=cut).status_code == 200


def plain(query: str) -> str:
    """A query as Grafana sends it."""
    return query.replace("$__rate_interval", "20s").replace("$model", ".*")


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """(metric, labels that the query names of it), by what a selector and a `by (...)` before it say."""
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))
    for name, labels in re.findall(r"\b([A-Za-z_]\w*)(\{[^}]*\})", query):
        yield name, grouped | set(re.findall(r"(\w+)\s*[=!]~?", labels))
    bare = re.sub(r'"[^"]*"', '""', query)  # what stands in quotation marks is a value
    for name in re.findall(r"\b((?:anyshape|ts)_\w+|[A-Z]\w+[A-Z0-9]\w+)\b(?!\{)", bare):
        yield name, grouped


@pytest.fixture(scope="module")
def front(operated: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAlone]:
    """A front before the server."""
    keys = ("--key-file", str(operated.torchserve.key_file))
    ports = (operated.ports[0], operated.ports[1])
    with FrontAlone(tmp_path_factory.mktemp("front"), "a-token-of-the-test", *keys, server=ports) as front:
        yield front


def pages(server: Server, front: FrontAlone) -> list[str]:
    """The addresses that prometheus.yml names, in its order."""
    return [f"{server.torchserve.metrics}/metrics", f"http://127.0.0.1:{front.metrics_port}/metrics"]


@pytest.fixture(scope="module")
def published(operated: Server, front: FrontAlone, text_of: TextOf) -> dict[str, set[str]]:
    """Metrics that the server and the front publish, with the labels that each has."""
    send(operated, text_of)
    time.sleep(2.5)
    found: dict[str, set[str]] = {}
    for page in pages(operated, front):
        for name, labels in Scrape.of(operated.http.get(page).text).values:
            found.setdefault(name, set()).update(key for key, _ in labels)
    return found


@pytest.mark.parametrize("query", [*QUERIES.values(), *(rule["expr"] for rule in RULES)])
def test_every_metric_and_label_of_a_query_is_published(query: str, published: dict[str, set[str]]) -> None:
    asked = [pair for pair in selectors(plain(query)) if pair[0] not in OF_PROMETHEUS]
    assert asked or "up{" in query
    for name, labels in asked:
        if name in ON_DEMAND - published.keys():
            continue
        assert name in published, f"{name} in {query}"
        assert labels <= published[name] | {"le"}, f"{name} in {query}"


def test_panels_lie_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    taken = [
        (x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


@pytest.fixture(scope="module")
def prometheus(
    operated: Server, front: FrontAlone, text_of: TextOf, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a Prometheus that has scraped the server while requests came."""
    assert shutil.which("prometheus"), "Prometheus is missing: apt-get install prometheus"
    folder, (port,) = tmp_path_factory.mktemp("prometheus"), free_ports(1)
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"]["scrape_interval"] = "1s"
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    targets[:] = [page.split("/")[2] for page in pages(operated, front)[: len(targets)]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copy(FOLDER / "alerts.yml", folder)
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log.txt").open("wb") as log:
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/-/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.3)
        for _ in range(5):
            send(operated, text_of)
            front.http.post(f"{front.url}/predictions/tiny", content=text_of(9))
            time.sleep(1.5)
        time.sleep(2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def asked(url: str, query: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


@pytest.mark.prometheus
@pytest.mark.parametrize("name", QUERIES)
def test_prometheus_answers_every_query_of_the_dashboard(name: str, prometheus: str) -> None:
    result = asked(prometheus, plain(QUERIES[name]))
    if not result and any(metric in QUERIES[name] for metric in ON_DEMAND):
        return  # it is understood, and there is none yet
    assert result, QUERIES[name]
    values = [float(series["value"][1]) for series in result]
    assert any(value == value for value in values), f"nothing but NaN: {QUERIES[name]}"


@pytest.mark.prometheus
def test_the_dashboards_variable_finds_the_models(prometheus: str) -> None:
    (variable,) = (v for v in DASHBOARD["templating"]["list"] if v["name"] == "model")
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert match
    found = httpx.get(f"{prometheus}/api/v1/label/{match[2]}/values", params={"match[]": match[1]}).json()
    assert found["data"] == ["tiny"]


@pytest.mark.prometheus
def test_what_prometheus_reckons_is_what_the_counters_say(prometheus: str, operated: Server) -> None:
    (result,) = asked(prometheus, 'sum(anyshape_real_positions_total{model_name="tiny"})')
    scrape = Scrape.of(operated.http.get(f"{operated.torchserve.metrics}/metrics").text)
    assert float(result["value"][1]) == scrape.total("anyshape_real_positions_total", model_name="tiny")
    (waste,) = asked(prometheus, plain(QUERIES["Waste: padded ÷ real positions/A"]))
    assert 1 <= float(waste["value"][1]) < 3
    name = "anyshape_request_duration_seconds"
    (median,) = asked(prometheus, f"histogram_quantile(0.5, sum by (le) ({name}_bucket))")
    assert float(median["value"][1]) == pytest.approx(scrape.quantile(name, 0.5), rel=1e-6)


@pytest.mark.prometheus
def test_the_alerts_come_when_they_must() -> None:
    for check in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts-test.yml"]):
        done = subprocess.run(["promtool", *check], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = yaml.safe_load((FOLDER / "alerts-test.yml").read_text(encoding="utf-8"))["tests"]
    fired = {
        case["alertname"] for test in tested for case in test["alert_rule_test"] if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in RULES}
