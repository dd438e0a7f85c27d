"""What deploy/ holds: validated offline, and the probe against a real TorchServe."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from anyshape.server.ports import free_ports
from tests.conftest import ROOT
from tests.server.front_alone import FrontAlone
from tests.server.probe import make_probe
from tests.server.served import Served

pytestmark = pytest.mark.cluster
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
NEURON = {"neuronCores": 2}


def render(**changed: Any) -> list[dict[str, Any]]:
    """The chart's objects. Knows the little of Go's templates that the chart uses, and refuses the rest."""
    values = {**VALUES, **changed}
    texts = [path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").glob("*.yaml"))]
    return [each for text in texts for each in yaml.safe_load_all(rendered(text, values)) if each]


def rendered(text: str, values: dict[str, Any]) -> str:
    text, shown, lines = re.sub(r"\s*\{\{-", "\n{{-", text), [True], []
    for line in text.split("\n"):
        if opened := re.fullmatch(r"\{\{- if (not )?\.Values\.(\w+) \}\}", line):
            shown.append(shown[-1] and bool(values[opened[2]]) is not bool(opened[1]))
        elif line == "{{- end }}":
            shown.pop()
        elif shown[-1]:
            lines.append(re.sub(r"\{\{ (.*?) \}\}", lambda found: _value(found[1], values), line))
    assert shown == [True], "an if without its end"
    assert not any("{{" in line for line in lines)
    return "\n".join(lines)


def _value(expression: str, values: dict[str, Any]) -> str:
    if expression == ".Release.Name":
        return "texts"
    found = re.fullmatch(r'(?:printf "(%q|\\"%v\\")" )?\.Values\.([\w.]+)', expression)
    assert found, f"{{{{ {expression} }}}} is more than this test knows of Go's templates"
    value: Any = values
    for name in found[2].split("."):
        value = value[name]
    return f'"{value}"' if found[1] else str(value)


@pytest.mark.parametrize("changed", [{}, NEURON, {"kserve": True}], ids=["plain", "neuron", "kserve"])
def test_the_objects_are_what_kubernetes_takes(changed: dict[str, Any]) -> None:
    import kubernetes_validate

    found = render(**changed)
    kinds = {each["kind"] for each in found}
    if "kserve" in changed:
        assert kinds == {"ServingRuntime", "InferenceService"}
        container = found[0]["spec"]["containers"][0]  # a cluster has its schema: its pod is checked
        found = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": found[0]["spec"]}]
        del found[0]["spec"]["supportedModelFormats"], found[0]["spec"]["protocolVersions"]
        assert container["name"] == "kserve-container"
    else:
        assert kinds == {
            *("Deployment", "Service", "HorizontalPodAutoscaler"),
            *("ConfigMap", "PodDisruptionBudget", "NetworkPolicy"),
        }
    for each in found:
        kubernetes_validate.validate(each, "1.36", strict=True)


@pytest.mark.parametrize("kserve", [False, True])
def test_pods_are_safe_bounded_and_probed_on_ready(kserve: bool) -> None:
    found = {each["kind"]: each for each in render(**NEURON, kserve=kserve)}
    pod = found["ServingRuntime"]["spec"] if kserve else found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    assert limits == {"cpu": 2, "memory": "3Gi", "aws.amazon.com/neuroncore": 2}
    assert container["resources"]["requests"]["cpu"] == 2
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "/etc/anyshape/ready.py" in container["readinessProbe"]["exec"]["command"]
    assert {"/run/anyshape", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    if not kserve:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert (
            found["Service"]["spec"]["selector"].items()
            <= found["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
        )


def test_the_plain_files_are_the_charts() -> None:
    """deploy/kubernetes.yaml and kserve.yaml are for those who have no helm."""
    for name, changed in (("kubernetes.yaml", {}), ("kserve.yaml", {"kserve": True})):
        written = list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))
        assert written == render(**changed), f"write deploy/{name} anew: python -m tests.test_deploy"


def test_the_config_of_the_image_is_that_of_the_chart() -> None:
    chart = next(each for each in render() if each["kind"] == "ConfigMap")["data"]["config.properties"]
    image = (DEPLOY / "config.properties").read_text(encoding="utf-8")
    lines = [line for line in image.splitlines() if line and not line.startswith("#")]
    assert chart.splitlines() == lines
    assert "management_address=http://127.0.0.1:8081" in lines


@pytest.mark.parametrize(
    ("name", "locks"),
    [
        ("Dockerfile", ["requirements.txt"]),
        ("Dockerfile.ray", ["requirements.txt", "requirements/cluster.txt"]),
        ("Dockerfile.kserve", ["requirements/kserve.txt"]),
    ],
)
def test_the_dockerfiles_have_no_complaints_and_install_by_the_locks(name: str, locks: list[str]) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = (DEPLOY / name).read_text(encoding="utf-8")
    assert re.findall(r"--require-hashes --no-deps --only-binary :all: -r (\S+)", text) == locks
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in copied.split():
            assert (ROOT / source).exists(), source


@pytest.mark.filterwarnings("ignore")  # Ray's own, when it is imported
def test_what_ray_serve_runs_is_what_it_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    written = yaml.safe_load((DEPLOY / "ray.yaml").read_text(encoding="utf-8"))
    schema = ServeDeploySchema.model_validate(written)
    assert [each.import_path for each in schema.applications] == ["anyshape.ray:app"]


def test_the_probe_waits_for_the_models_workers(embedding_archive: Path, tmp_path: Path) -> None:
    from anyshape.server.torchserve import TorchServe
    from tests.server.harness import write_config

    config = tmp_path / "config.properties"
    management = write_config(config)[1]
    text = config.read_text(encoding="utf-8").replace(
        "disable_token_authorization=false", "disable_token_authorization=true"
    )
    config.write_text(text, encoding="utf-8")
    probe = [sys.executable, "-I", str(DEPLOY / "ready.py"), f"http://127.0.0.1:{management}"]

    def ready() -> tuple[int, str]:
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert ready()[0] == 1
    server = TorchServe(
        config, store=embedding_archive.parent, run=tmp_path / "run", models=["embedding"], model_api=False
    )
    with server:
        server.wait_started(seconds=180)
        early = ready()
        server.wait_ready("embedding", seconds=180)
        assert ready() == (0, "")
    assert early[0] == 1 or early == (0, "")  # it may have been quick
    assert ready()[0] == 1


def test_as_the_first_process_of_a_container_it_ends_within_what_docker_waits(tmp_path: Path) -> None:
    """Orphans of TorchServe are its own there, and must be waited for."""
    first = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*first, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make a namespace of processes")
    make_probe(tmp_path, workers=2)
    served = Served(tmp_path, "probe")
    served.command = [*first, *served.command]
    served.start()
    try:
        served.wait_for("Ctrl-C stops the server.")
        (inside,) = psutil.Process(served.process.pid).children()
        inside.terminate()
        assert served.process.wait(15) == 0  # docker waits 10 s, for a machine that does nothing else
        assert "Stopped." in served.output
    finally:
        served.process.kill()


def test_the_service_is_what_systemd_takes_and_hardened(tmp_path: Path) -> None:
    """Its program and its user are not of this machine: Python stands for the first."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("needs systemd-analyze")
    text = (DEPLOY / "anyshape.service").read_text(encoding="utf-8")
    unit = tmp_path / "anyshape.service"
    unit.write_text(text.replace("/opt/anyshape/bin/anyshape", sys.executable))
    done = subprocess.run([tool, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "anyshape.service" in line]
    assert (done.returncode, said) == (0, []), done.stderr
    rated = [
        tool,
        "security",
        "--offline=yes",
        "--threshold=25",
        unit,
    ]  # tenths: 2.5 of 10 is exposed at most
    done = subprocess.run(rated, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_flags_of_the_service_are_the_commands_own() -> None:
    from anyshape.cli.main import _parser

    text = (DEPLOY / "anyshape.service").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^ExecStart=/opt/anyshape/bin/anyshape (.*)$", text, re.MULTILINE)
    args = _parser(command.split()).parse_args(command.split())
    assert args.front
    assert args.model == ["minilm"]


@pytest.fixture
def behind_nginx(tmp_path: Path) -> Iterator[str]:
    """The address of nginx with deploy/nginx.conf before a front, before no TorchServe."""
    nginx = shutil.which("nginx") or pytest.skip("needs nginx")
    (port,) = free_ports(1)
    tls = ROOT / "tests" / "data" / "tls"
    with FrontAlone(tmp_path, "a-token-of-the-test") as front:
        site = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
        for written, here in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("server 127.0.0.1:8443", f"server 127.0.0.1:{front.port}"),
            ("/etc/anyshape/cert.pem", str(tls / "cert.pem")),
            ("/etc/anyshape/key.pem", str(tls / "key.pem")),
        ):
            assert site.count(written) == 1, written
            site = site.replace(written, here)
        paths = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf = tmp_path / "nginx.conf"
        conf.write_text(
            f"daemon off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\n"
            f"http {{\naccess_log {tmp_path}/access.log;\n{paths}{site}}}\n"
        )
        command = [nginx, "-p", str(tmp_path), "-c", str(conf)]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        process = subprocess.Popen(command)
        try:
            deadline = time.monotonic() + 20
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"https://localhost:{port}"
        finally:
            process.terminate()
            process.wait(20)


def test_nginx_takes_its_site_and_what_the_front_says_goes_through(behind_nginx: str) -> None:
    context = ssl.create_default_context(cafile=str(ROOT / "tests" / "data" / "tls" / "cert.pem"))
    bearer = {"Authorization": "Bearer a-token-of-the-test"}
    with httpx.Client(base_url=behind_nginx, verify=context, trust_env=False) as http:
        assert http.get("/livez").json() == {"status": "live"}
        assert http.get("/readyz").status_code == 503
        for headers, status, kind in (({}, 401, "Unauthorized"), (bearer, 503, "ServerDown")):
            answer = http.post("/predictions/m", content=b"x", headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (status, kind)
        form = http.post("/predictions/m", data={"a": "b"}, headers=bearer)
        assert (form.status_code, form.json()["type"]) == (415, "UnsupportedMediaType")
        large = http.post("/predictions/m", content=bytes(11 << 20), headers=bearer)
        assert (large.status_code, large.json()["type"]) == (413, "InputTooLarge")


if __name__ == "__main__":
    for name, changed in (("kubernetes.yaml", {}), ("kserve.yaml", {"kserve": True})):
        head = "# Written from deploy/chart by `python -m tests.test_deploy`, for a release called texts.\n"
        body = yaml.safe_dump_all(render(**changed), sort_keys=False)
        (DEPLOY / name).write_text(head + body, encoding="utf-8")
