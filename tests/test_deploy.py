"""What deploy/ holds: validated offline, and the probe against a real TorchServe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

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


def test_the_dockerfile_has_no_complaints_and_installs_by_the_locks() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes --no-deps --only-binary :all: -r requirements.txt" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name


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


if __name__ == "__main__":
    for name, changed in (("kubernetes.yaml", {}), ("kserve.yaml", {"kserve": True})):
        head = "# Written from deploy/chart by `python -m tests.test_deploy`, for a release called texts.\n"
        body = yaml.safe_dump_all(render(**changed), sort_keys=False)
        (DEPLOY / name).write_text(head + body, encoding="utf-8")
