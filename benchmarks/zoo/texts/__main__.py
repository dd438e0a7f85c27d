"""`python -m benchmarks.zoo.texts [TYPE ...]`: builds and checks models, and writes docs/models.md.

What was tried is not tried again, unless it is named or its verdict is with --again.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from benchmarks.paths import WORK
from benchmarks.zoo import forks, page, runner
from benchmarks.zoo.texts.configs import UNTRIED, bare, classifiers

FOUND = WORK / "zoo-texts.json"
SECONDS = 400  # of a core that one model may take


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.texts", description=__doc__)
    parser.add_argument("type", nargs="*", help="only these")
    parser.add_argument("--again", choices=[*page.VERDICTS, "all"], help="what came out so once more")
    parser.add_argument("--page", action="store_true", help="only write the page from what there is")
    asked = parser.parse_args()
    found, known = runner.read(FOUND), [*classifiers(), *bare()]
    wanted = asked.type or [
        kind for kind in known if kind not in found or asked.again in ("all", found[kind]["verdict"])
    ]
    if not asked.page:
        os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        from benchmarks.zoo.texts.trial import attempt

        warnings.simplefilter("ignore")
        forks.run_all(wanted, attempt, FOUND, SECONDS, WORK / "zoo-texts", {"state": page.state()})
    found = {kind: one for kind, one in runner.read(FOUND).items() if kind in known}
    for kind, reason in UNTRIED.items():
        if found.get(kind, {}).get("verdict") == "failed":
            found[kind] = {**found[kind], "reason": reason}
    page.write("texts", section(found))
    return int(any(one["verdict"] == "wrong" for one in found.values()))


def section(found: page.Found) -> str:
    import torch
    import transformers

    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    parts = [f"Of {versions}. Buckets of 8 and 32 tokens where nothing else is said."]
    for heading, kinds, about in (
        ("Classifiers", classifiers(), "types of transformers' mapping for the classification of texts"),
        ("Without a head", bare(), "more types of models that read texts, as `sentence-embedding`"),
    ):
        tried = {kind: found[kind] for kind in kinds if kind in found}
        later = len(kinds) - len(tried)
        parts += [f"### {heading}", page.summary(tried, about, later), page.states(tried), page.tables(tried)]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    sys.exit(main())
