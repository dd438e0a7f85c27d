"""Which operators of a model the SDK of Neuron knows: asked before anything is compiled, and told
afterwards."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import torch

from anyshape.backends.base import Tensors, quiet
from anyshape.building.errors import BuildError, first_line

# Kinds of models that neuronx-cc is known to crash on, and where that is written down.
KNOWN_TO_FAIL = dict.fromkeys(
    ("yolos", "wav2vec2", "hubert", "convbert"), "https://github.com/aws-neuron/aws-neuron-sdk/issues/1265"
)


@dataclass
class Operators:
    """What the SDK said. unknown: operators that it does not compile, each with where the model asks for it,
    where that is told. said: its own summary. failed: why it could not be asked."""

    asked: bool = True
    unknown: List[Dict[str, str]] = field(default_factory=list)
    said: str = ""
    failed: str = ""

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Optional[Operators]:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        if not self.failed:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(self.to_json()), encoding="utf-8")

    def check(self, backend: str, fallback: bool) -> None:
        """Raise BuildError for a model that does not compile for want of an operator."""
        if self.unknown and not fallback:
            named = "; ".join(
                f"{entry['kind']}{' at ' * bool(entry['place'])}{entry['place']}" for entry in self.unknown
            )
            raise BuildError(
                f"handler.model: the compiler of {backend} does not know {named}: write these with other "
                "operations, or "
                "set handler.backend_options.fallback: true to run them on the CPU, which costs a trip "
                "there and back"
            )


def analyze_neuronx(sdk: Any, model: torch.nn.Module, example: Tensors) -> Operators:
    """torch_neuronx.analyze, which compiles each operator by itself."""
    theirs = any(type(part).__module__.startswith("transformers.") for part in model.modules())
    try:
        with torch.no_grad(), quiet(), tempfile.TemporaryDirectory(prefix="anyshape-analyze-") as work:
            found = sdk.analyze(model, example, compiler_workdir=work, is_hf_transformers=theirs)
        unknown = [
            {
                "kind": str(entry["kind"]),
                "place": str(entry.get("call", "")).splitlines()[0] if entry.get("call") else "",
            }
            for entry in found["unsupported_operators"]
        ]
        return Operators(
            unknown=unknown, said=f"{found['support_percentage']} of the operators are supported"
        )
    except Exception as error:  # a check that fails is no reason not to compile
        return Operators(failed=first_line(error))


def analyze_neuron(sdk: Any, model: torch.nn.Module, example: Tensors) -> Operators:
    """torch.neuron.analyze_model, which tells its logger alone."""
    operators = Operators()
    try:
        with _overheard() as lines, torch.no_grad(), quiet():
            sdk.analyze_model(model, example_inputs=list(example))
    except Exception as error:
        return Operators(failed=first_line(error))
    unsupported = False
    for line in lines:
        if line.startswith("The following operations"):
            unsupported = "not supported" in line
        elif unsupported and "::" in line and " " not in line.strip():
            operators.unknown.append({"kind": line.strip(), "place": ""})
        elif "arithmetic operations" in line:
            operators.said = line
    return operators


class _Lines(logging.Handler):
    def __init__(self, lines: List[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _overheard() -> Iterator[List[str]]:
    """What the SDK's logger says meanwhile; it goes nowhere else."""
    logger = logging.getLogger("Neuron")
    lines: List[str] = []
    handler = _Lines(lines)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def refuse_known(model: torch.nn.Module) -> None:
    """Raise BuildError for a kind of model that neuronx-cc is known to crash on."""
    kinds = {getattr(getattr(part, "config", None), "model_type", "") for part in model.modules()}
    for kind in sorted(kinds & set(KNOWN_TO_FAIL)):
        raise BuildError(
            f"handler.model: models of the kind {kind} are known to crash neuronx-cc "
            f"({KNOWN_TO_FAIL[kind]}); set "
            "handler.backend_options.analyze: false to try it all the same"
        )


def device_parts(program: Any) -> int:
    """How many parts of a compiled program run on the device: one, unless operators fell back to the CPU."""
    return str(program.inlined_graph).count("neuron::forward")
