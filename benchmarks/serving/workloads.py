"""Workloads: seeded inputs of realistic sizes, each with the answer of the plain, unpadded, eager model.

- `paragraphs`: the paragraphs of the standard library's pydoc topics and its docstrings (p50 32 tokens);
  what is longer than 512 tokens is left out, so that no system has to cut anything.
- `short`: the first words of those paragraphs, as long as search queries (p50 9 tokens).
- `mrpc`: those words cut to the token counts of MRPC's test pairs (p50 53, maximum 104).
- `bimodal`: half 40 tokens, half 380.
- `coco`: photographs resized to the heights and widths of COCO val2017, as JPEG.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import io
import json
import pkgutil
import random
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paths import CACHE, DATA
from benchmarks.serving import models

MAX_TOKENS = 512
# Query lengths (tokens with the two special ones) and how often: p50 9, as in logs of web search.
SHORT_LENGTHS = {5: 4, 6: 9, 7: 14, 8: 17, 9: 16, 10: 13, 11: 9, 12: 7, 14: 5, 16: 3, 20: 2, 28: 1}
DOCUMENTED = ("collections", "json", "logging", "email", "http", "unittest", "xml", "asyncio")
PACKAGES = ("argparse", "csv", "datetime", "decimal", "difflib", "functools", "heapq", "inspect")


@dataclass
class Workload:
    """`bodies[i]` is one request's body, `sizes[i]` its tokens or (height, width), and
    `references[i]` the answer: a normalised embedding [384], or the five best scores, best first."""

    name: str
    kind: str  # "text" or "image"
    bodies: list[bytes]
    sizes: list[tuple[int, ...]]
    references: np.ndarray

    @property
    def content_type(self) -> str:
        return "text/plain; charset=utf-8" if self.kind == "text" else "image/jpeg"


def load(name: str, seed: int = 0, count: int = 512) -> Workload:
    """The workload of that name with `count` items. References are computed once and kept on disk.

    Raises KeyError for an unknown name.
    """
    kind = "image" if name == "coco" else "text"
    bodies = load_bodies(name, seed, count)
    digest = hashlib.sha256(b"\0".join([models.fingerprint(kind).encode(), *bodies])).hexdigest()
    cache = CACHE / f"references-{name}-{digest[:16]}.npy"
    if cache.exists():
        references = np.load(cache)
    else:
        answer = models.embed_plainly if kind == "text" else models.classify_plainly
        references = np.stack([answer(body) for body in bodies])
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, references)
    return Workload(name, kind, bodies, [size_of(kind, body) for body in bodies], references)


def load_bodies(name: str, seed: int = 0, count: int = 512) -> list[bytes]:
    """The bodies alone, where no answer is judged."""
    return WORKLOADS[name](random.Random(seed), count)


def size_of(kind: str, body: bytes) -> tuple[int, ...]:
    if kind == "text":
        return (token_count(body.decode()),)
    from PIL import Image

    width, height = Image.open(io.BytesIO(body)).size
    return (height, width)


@lru_cache(maxsize=100_000)
def token_count(text: str) -> int:
    return len(models.tokenizer().encode(text).ids)


@lru_cache(maxsize=1)
def corpus() -> list[str]:
    """Paragraphs and docstrings of the standard library, in a fixed order, none above 512 tokens."""
    from pydoc_data.topics import topics

    texts = [part.strip() for topic in topics.values() for part in re.split(r"\n\s*\n", topic)]
    texts += docstrings()
    unique = dict.fromkeys(text for text in texts if len(text.split()) > 2)
    return [text for text in unique if token_count(text) <= MAX_TOKENS]


def docstrings() -> list[str]:
    names = [*DOCUMENTED, *PACKAGES]
    for package in DOCUMENTED:
        path = importlib.import_module(package).__path__
        names += [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)]
    found = []
    for name in sorted(set(names)):
        if name.endswith("__main__"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue  # a platform's own part of a package, such as asyncio.windows_utils
        owners: list[Any] = [value for _, value in sorted(vars(module).items()) if inspect.isclass(value)]
        owners += [value for _, value in sorted(vars(module).items()) if inspect.isfunction(value)]
        members = [m for o in owners if inspect.isclass(o) for _, m in sorted(vars(o).items())]
        for owner in [module, *owners, *filter(inspect.isfunction, members)]:
            if inspect.getdoc(owner) and getattr(owner, "__module__", name) in sys.modules:
                found.append(inspect.getdoc(owner) or "")
    return [text for text in dict.fromkeys(found) if text]


def paragraphs(chance: random.Random, count: int) -> list[bytes]:
    return [text.encode() for text in chance.choices(corpus(), k=count)]


def short(chance: random.Random, count: int) -> list[bytes]:
    lengths = chance.choices(list(SHORT_LENGTHS), list(SHORT_LENGTHS.values()), k=count)
    return [text_of(length, chance) for length in lengths]


def mrpc(chance: random.Random, count: int) -> list[bytes]:
    histogram = json.loads((DATA / "mrpc_test_token_lengths.json").read_text())["pair"]
    lengths = chance.choices(range(len(histogram)), histogram, k=count)
    return [text_of(length, chance) for length in lengths]


def bimodal(chance: random.Random, count: int) -> list[bytes]:
    return [text_of(chance.choice([40, 380]), chance) for _ in range(count)]


@lru_cache(maxsize=1)
def word_tokens() -> list[tuple[str, int]]:
    """The plain words of the corpus in order, each with its number of tokens."""
    words = re.findall(r"[a-z]+", " ".join(corpus()).lower())
    encoded = models.tokenizer().encode_batch(words, add_special_tokens=False)
    return [(word, len(encoding.ids)) for word, encoding in zip(words, encoded)]


def text_of(length: int, chance: random.Random) -> bytes:
    """Consecutive words that make exactly `length` tokens, the two special ones included."""
    words = word_tokens()
    room, taken = length - 2, []
    position = chance.randrange(len(words))
    while room:
        word, tokens = words[position % len(words)]
        position += 1
        if tokens <= room:
            taken.append(word)
            room -= tokens
    return " ".join(taken).encode()


def coco(chance: random.Random, count: int) -> list[bytes]:
    from PIL import Image

    sizes = json.loads((DATA / "coco_val2017_sizes.json").read_text())
    drawn = chance.choices(sizes, [size[2] for size in sizes], k=count)
    pictures = photographs()
    bodies = []
    for width, height, _ in drawn:
        picture = chance.choice(pictures).resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        bodies.append(buffer.getvalue())
    return bodies


def photographs() -> list[Any]:
    """scikit-image's photographs (its wheel carries them), in RGB."""
    from PIL import Image

    spec = importlib.util.find_spec("skimage")  # the package itself would want its dependencies
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pip install -r requirements/bench.txt (scikit-image is missing)")
    folder = Path(spec.origin).parent / "data"
    names = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"]
    found = [folder / name for name in names if (folder / name).exists()]
    return [Image.open(path).convert("RGB") for path in found]


WORKLOADS: dict[str, Callable[[random.Random, int], list[bytes]]] = {
    "paragraphs": paragraphs,
    "short": short,
    "mrpc": mrpc,
    "bimodal": bimodal,
    "coco": coco,
}
