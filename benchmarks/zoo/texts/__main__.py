"""`python -m benchmarks.zoo.texts [TYPE ...]`: builds and checks models, and writes docs/models.md.

What was tried is not tried again, unless it is named or its verdict is with --again. With --rows several
texts share a row, in random orders; the page then says so in a section of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from functools import partial

from benchmarks.paths import WORK
from benchmarks.zoo import forks, page, runner
from benchmarks.zoo.texts.configs import UNTRIED, bare, classifiers

FOUND = {False: WORK / "zoo-texts.json", True: WORK / "zoo-texts-rows.json"}
SECONDS = 400  # of a core that one model may take


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.texts", description=__doc__)
    parser.add_argument("type", nargs="*", help="only these")
    parser.add_argument("--again", choices=[*page.VERDICTS, "all"], help="what came out so once more")
    parser.add_argument("--page", action="store_true", help="only write the page from what there is")
    parser.add_argument("--rows", action="store_true", help="layout: rows")
    asked = parser.parse_args()
    results = FOUND[asked.rows]
    found, known = runner.read(results), [*classifiers(), *bare()]
    wanted = asked.type or [
        kind for kind in known if kind not in found or asked.again in ("all", found[kind]["verdict"])
    ]
    if not asked.page:
        os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        from benchmarks.zoo.texts.trial import attempt

        warnings.simplefilter("ignore")
        once, log = partial(attempt, rows=asked.rows), WORK / results.stem
        forks.run_all(wanted, once, results, SECONDS, log, {"state": page.state()})
    found = {kind: one for kind, one in runner.read(results).items() if kind in known}
    for kind, reason in UNTRIED.items():
        if found.get(kind, {}).get("verdict") == "failed":
            found[kind] = {**found[kind], "reason": reason}
    page.write(results.stem.replace("zoo-", ""), section(found, asked.rows))
    return int(any(one["verdict"] == "wrong" for one in found.values()))


def section(found: page.Found, rows: bool) -> str:
    import torch
    import transformers

    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    how = "Rows of 16 and 48 tokens" if rows else "Buckets of 8 and 32 tokens where nothing else is said"
    parts = [f"Of {versions}. {how}."]
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
