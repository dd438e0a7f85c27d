"""`python -m benchmarks.zoo.pictures [MODEL ...]`: builds and checks models, and writes docs/models.md.

A model is `package/name`. Models of packages that this environment lacks are left out; `make zoo-pictures`
runs it in one after the other. What was tried is not tried again, unless it is named or its verdict is with
--again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import traceback
from typing import Any, Dict, List

from benchmarks.paths import WORK
from benchmarks.zoo import page, runner
from benchmarks.zoo.pictures.configs import KINDS, entries

FOUND = WORK / "zoo-pictures.json"
SECONDS = 600  # that one model may take
PACKAGES = ("torchvision", "timm", "transformers")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.pictures", description=__doc__)
    parser.add_argument("model", nargs="*", help="only these")
    parser.add_argument("--package", action="append", choices=PACKAGES, help="only models of this package")
    parser.add_argument("--again", choices=[*page.VERDICTS, "all"], help="what came out so once more")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and their sizes (0)")
    parser.add_argument("--page", action="store_true", help="only write the page from what there is")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return _one(asked.model[0], asked.seed)
    known, found = entries(), runner.read(FOUND)
    here = {name: entry for name, entry in known.items() if _installed(entry.package)}
    wanted = [name for name in asked.model if name in here] or [
        name
        for name, entry in here.items()
        if not asked.model and entry.package in (asked.package or PACKAGES)
        if name not in found or asked.again in ("all", found[name]["verdict"])
    ]
    if not asked.page:
        command = runner.python("-m", "benchmarks.zoo.pictures", "--one", "--seed", str(asked.seed))
        runner.run_all(wanted, lambda name: [*command, name], FOUND, SECONDS)
    found = {name: runner.read(FOUND)[name] for name in known if name in runner.read(FOUND)}
    page.write("pictures", section(found))
    return int(any(one["verdict"] == "wrong" for one in found.values()))


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _one(name: str, seed: int) -> int:
    from benchmarks.zoo.pictures.trial import attempt

    package = entries()[name].package
    versions = {each: importlib.metadata.version(each) for each in (package, "torch")}
    found: Dict[str, Any]
    try:
        found = attempt(name, seed)
    except Exception as error:  # the plain model does not run, or somebody must look at it
        traceback.print_exc()
        found = {"verdict": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    runner.say({**found, "versions": versions})
    return 0


def section(found: page.Found) -> str:
    known = entries()
    parts: List[str] = []
    for package in PACKAGES:
        chosen = {name: one for name, one in found.items() if known[name].package == package}
        if not chosen:
            continue
        versions = sorted({_versions(one) for one in chosen.values()})
        listed = sum(entry.package == package for entry in known.values())
        tried = f"{len(chosen)} of the {listed} models that are listed have been tried so far."
        parts.append(f"### {package}\n\n{'; '.join(versions)}. {tried if len(chosen) < listed else ''}")
        for kind, what in KINDS.items():
            some = {n.split("/", 1)[1]: one for n, one in chosen.items() if known[n].kind == kind}
            if some:
                parts += [page.summary(some, f"{package} models {what}"), page.tables(some)]
    return "\n\n".join(parts)


def _versions(one: Any) -> str:
    return ", ".join(f"{name} {version}" for name, version in one.get("versions", {}).items())


if __name__ == "__main__":
    sys.exit(main())
