"""`python -m benchmarks.zoo.pictures [MODEL ...]`: builds and checks models, and writes docs/models.md.

A model is `package/name`. Models of packages that this environment lacks are left out; `make zoo-pictures`
runs it in one after the other. What came out is kept in benchmarks/results/zoo-pictures.json after each
model, and what was tried is not tried again, unless it is named or its verdict is with --again.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
import warnings
from functools import partial
from typing import Any, Dict, List, Set

from benchmarks.paths import RESULTS, WORK
from benchmarks.zoo import forks, page, runner
from benchmarks.zoo.pictures.configs import KINDS, entries

FOUND = RESULTS / "zoo-pictures.json"
SECONDS = 240  # that one model may compute
PACKAGES = ("torchvision", "timm", "transformers")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.pictures", description=__doc__)
    parser.add_argument("model", nargs="*", help="only these")
    parser.add_argument("--package", action="append", choices=PACKAGES, help="only models of this package")
    parser.add_argument("--kind", choices=list(KINDS), help="only models of this kind")
    parser.add_argument("--again", choices=[*page.VERDICTS, "all"], help="what came out so once more")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and their sizes (0)")
    parser.add_argument("--page", action="store_true", help="only write the page from what there is")
    asked = parser.parse_args()
    known, found = entries(), runner.read(FOUND)
    here = {name: entry for name, entry in known.items() if _installed(entry.package)}
    wanted = [name for name in asked.model if name in here] or [
        name
        for name, entry in here.items()
        if not asked.model and entry.package in (asked.package or PACKAGES)
        if asked.kind in (None, entry.kind)
        if name not in found or asked.again in ("all", found[name]["verdict"])
    ]
    wanted.sort(key=lambda name: known[name].large)
    if not asked.page:
        os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
        warnings.simplefilter("ignore")
        _import({known[name].package for name in wanted})
        if not wanted:
            print(f"all of them were tried before ({FOUND}): --again all tries them anew", file=sys.stderr)
        once, log = partial(_one, seed=asked.seed), WORK / "zoo-pictures"
        forks.run_all(wanted, once, FOUND, SECONDS, log, {"state": page.state(), "seed": asked.seed})
    found = {name: runner.read(FOUND)[name] for name in known if name in runner.read(FOUND)}
    page.write("pictures", section(found))
    return int(any(one["verdict"] == "wrong" for one in found.values()))


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _import(packages: Set[str]) -> None:
    """What every attempt needs, once for all of them."""
    for package in sorted(packages):
        importlib.import_module(package)
    importlib.import_module("benchmarks.zoo.pictures.trial")


def _one(name: str, seed: int) -> Dict[str, Any]:
    from benchmarks.zoo.pictures.trial import attempt

    package = entries()[name].package
    versions = {each: importlib.metadata.version(each) for each in (package, "torch")}
    return {**attempt(name, seed), "versions": versions}


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
                parts += [
                    page.summary(some, f"{package} models {what}"),
                    page.states(some),
                    page.tables(some),
                ]
    return "\n\n".join(part for part in parts if part)


def _versions(one: Any) -> str:
    return ", ".join(f"{name} {version}" for name, version in one.get("versions", {}).items())


if __name__ == "__main__":
    sys.exit(main())
