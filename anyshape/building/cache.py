"""Compiled programs that are kept: a build finds again what an earlier one compiled, also one that was
killed.

A program is known by what it was made from: the graph, the shapes, the compiler and its arguments, and the
weights where they are inside of it. Nothing else finds it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

import torch

from anyshape.archive import sha256
from anyshape.backends.base import Tensors, quiet

FOLDER = "ANYSHAPE_CACHE"  # in the environment: where programs are kept
FORMAT = 1
_MANGLED = re.compile(r"\.___torch_mangle_\d+")  # torch numbers classes anew in every process
_COMMENT = re.compile(r"#.*$", re.MULTILINE)  # places in the source


@dataclass(frozen=True)
class Kept:
    """A kept program. facts: what was said of it when it was compiled."""

    path: Path
    facts: Dict[str, Any]


class Cache:
    """The folder of kept programs: $ANYSHAPE_CACHE, else ~/.cache/anyshape. It may be deleted at any time."""

    def __init__(self, kind: str) -> None:
        """kind: a folder within, one per backend."""
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self.folder = Path(os.environ.get(FOLDER) or Path(home) / "anyshape") / kind

    def find(self, key: str) -> Optional[Kept]:
        """The program of this key, if it is there and whole."""
        path = self.folder / f"{key}.pt"
        try:
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            whole = sha256(path) == facts["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Kept(path, facts) if whole else None

    @contextlib.contextmanager
    def keep(self, key: str, facts: Dict[str, Any]) -> Iterator[Path]:
        """Give a path to write the program to; it counts when the block ends, in one step, with what `facts`
        then holds. Raises OSError where nothing can be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as work:
            written = Path(work) / "program.pt"
            yield written
            said = Path(work) / "facts.json"
            said.write_text(json.dumps({**facts, "sha256": sha256(written)}), encoding="utf-8")
            os.replace(written, self.folder / f"{key}.pt")
            os.replace(said, self.folder / f"{key}.json")


def key_of(facts: Mapping[str, Any]) -> str:
    """A name for what a program was made from."""
    written = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()[:40]


def graph_digest(model: torch.nn.Module, example: Tensors) -> str:
    """Equal for models that compute the same operations on the same constants, weights apart, for these
    inputs."""
    with torch.no_grad(), quiet():
        traced = torch.jit.trace(model, example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    graph = traced.inlined_graph
    found = hashlib.sha256(_COMMENT.sub("", _MANGLED.sub("", str(graph))).encode())
    for node in graph.findAllNodes("prim::Constant", True):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            found.update(tensor_digest(node.t("value")).encode())
    return found.hexdigest()


def weights_digest(model: torch.nn.Module, contents: bool) -> str:
    """Of all weights' names, shapes and dtypes; and of what is in them, if `contents` says so. Buffers'
    contents always count: they are constants to a compiler."""
    found = hashlib.sha256()
    for kind, name, tensor in _named(model):
        found.update(f"{kind} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if contents or kind == "buffer":
            found.update(tensor_digest(tensor).encode())
    return found.hexdigest()


def _named(model: torch.nn.Module) -> Iterator[Tuple[str, str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        yield "parameter", name, parameter
    for name, buffer in model.named_buffers():
        yield "buffer", name, buffer


def tensor_digest(tensor: torch.Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1)
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(data.view(torch.uint8).numpy().data if data.numel() else b"")
    return found.hexdigest()
