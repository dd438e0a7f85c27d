"""What the README and the docs show is true: their lines run as they stand after `make serve` alone.

The project is copied, with an environment that holds what `make serve` installs and nothing else, and
its lines go to a shell that knows neither this environment nor a PYTHONPATH. Only ports are others.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

from anyshape.recipe import read_yaml
from tests.server.harness import free_ports

ROOT = Path(__file__).resolve().parent.parent
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/planning.md")}
README = PAGES["README.md"]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PORTS = ("8080", "8081", "8082", "7070", "7071")


def test_the_recipe_shown_is_the_one_that_ships() -> None:
    (shown,) = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
    assert shown == read_yaml(ROOT / "recipes" / "minilm.yaml")


def test_the_make_targets_shown_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:^    |\$ |`)make ([a-z][a-z-]+)", README, re.MULTILINE))
    assert {"serve", "test", "demo"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


class Project:
    """A copy of the project as `make venv` leaves it: its environment has what the runtime's locks name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        left_out = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "run", "*.mar", "work", "__pycache__")
        shutil.copytree(ROOT, folder, ignore=left_out)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        (site,) = (folder / ".venv" / "lib").glob("*/site-packages")
        for installed in runtime_files():
            (site / installed.name).symlink_to(installed)
        (site / "project.pth").write_text(str(folder))
        command = folder / ".venv" / "bin" / "anyshape"  # as pip writes it
        python = folder / ".venv" / "bin" / "python"
        command.write_text(f"#!{python}\nimport sys\nfrom anyshape.cli.main import main\nsys.exit(main())\n")
        command.chmod(0o755)
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS)))))
        settings = folder / "config.properties"
        settings.write_text(self.ported(settings.read_text(encoding="utf-8")), encoding="utf-8")
        recipe = read_yaml(folder / "recipes" / "minilm.yaml")
        for name, buckets in (("recipes/minilm.yaml", [16, 192]), ("my-recipe.yaml", [16])):
            recipe["handler"].update(buckets=buckets, largest_batch=1)  # fewer to compile and to warm
            (folder / name).write_text(yaml.safe_dump(recipe), encoding="utf-8")
        (folder / ".venv" / "runtime.stamp").touch()

    def ported(self, text: str) -> str:
        for usual, free in self.ports.items():
            text = re.sub(rf"(?<=[:=]){usual}\b", free, text)
        return text

    def shell(self, lines: list[str]) -> str:
        """What one shell prints that runs these lines; every line must succeed."""
        script = self.ported("\n".join(["set -ex", *lines]))
        ran = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=CLEAN, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @contextmanager
    def running(self, line: str) -> Iterator[None]:
        """Run a line that serves, from when it says READY; Ctrl-C ends it, and it must end well."""
        log = self.folder / "log.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.folder,
                env=CLEAN,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 300
            while "Ctrl-C stops the server." not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
        assert "Stopped." in log.read_text()


CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
CLEAN.update({name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ})


def runtime_files() -> set[Path]:
    """What lies in site-packages, but for what only tests, figures and other recipes need."""
    named = re.compile(r"^[\w.-]+(?===)", re.MULTILINE)
    wanted, others = (
        {canonicalize_name(name) for lock in locks for name in named.findall((ROOT / lock).read_text())}
        for locks in (
            ("requirements.txt", "requirements/minilm.txt"),
            ("requirements/dev.txt", "requirements/models.txt", "requirements/bench.txt"),
        )
    )
    kept = set()
    # Not all of sys.path: setuptools, once imported, adds what it carries itself.
    for distribution in metadata.distributions(path=[sysconfig.get_path("purelib")]):
        if canonicalize_name(distribution.metadata["Name"]) not in {*(others - wanted), "anyshape"}:
            site = Path(str(distribution.locate_file("")))
            tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
            kept |= {site / top for top in tops}
    return kept


def lines_of(page: str) -> list[str]:
    """The lines after a `$`, but for those that measure for minutes."""
    shown = re.findall(r"^    \$ ((?:.*\\\n)*.*)", PAGES[page], re.MULTILINE)
    return [line for line in shown if "bench" not in line]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("fresh") / "project")


def test_every_line_runs_beside_make_serve_alone(project: Project) -> None:
    with project.running("make serve"):
        assert "bucket" in project.shell(["make demo"])
        printed = project.shell(lines_of("README.md"))
        assert "HTTP/1.1 200" in printed
        assert "X-Padding-Ratio" in printed


@pytest.mark.slow
def test_every_line_of_planning_runs_beside_make_serve(project: Project) -> None:
    with project.running("make serve"):
        project.shell(["make demo"])  # traffic to plan from
        project.shell(lines_of("docs/planning.md"))
        assert (project.folder / "plan.png").is_file()
        assert (project.folder / "report.html").is_file()


@pytest.mark.parametrize("code", [text for kind, text in BLOCKS if kind == "python"])
def test_the_python_shown_runs(code: str, project: Project) -> None:
    assert project.shell([f".venv/bin/python -c {shlex.quote(code)}"]) == "384 [384, 384]\n"


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_built_from_anywhere_and_served(project: Project, tmp_path: Path) -> None:
    assert "./build_mar.sh my-recipe.yaml " in README
    assert ".venv/bin/anyshape serve --model my-recipe " in README
    project.shell([f"cd {tmp_path}", f"{project.folder}/build_mar.sh {project.folder}/my-recipe.yaml"])
    assert list(tmp_path.iterdir()) == []
    with project.running(".venv/bin/anyshape serve --model my-recipe"):
        pass


def test_weights_that_are_missing_are_told_with_the_command_that_brings_them(project: Project) -> None:
    command = ["bash", "-c", "./build_mar.sh recipes/mobilenet.yaml"]
    ran = subprocess.run(command, cwd=project.folder, env=CLEAN, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    (error,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert error.endswith("are not installed; run: make weights")
