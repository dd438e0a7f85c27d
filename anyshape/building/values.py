"""Refuses models whose Python code looks at a value: a trace keeps what it saw for one example.

    if bool((x.mean() > 1).all()): ...        # frozen: the branch that the example took
    x * x.sum().item()                        # frozen: the example's sum
    if x.shape[1] > 8: ...                    # fixed in a bucket in any case

A shape is the same for all that a bucket runs, a value is not. So the model is traced once more, and what
derives from its inputs is followed through every operation: by memory, so that views and writes in place
count. Only reads from Python are frozen, and those of an `assert` decide nothing. A tensor that is handed
to an operation as a number (an end of torch.arange, a slice) is recorded, and so is what an operation reads
itself.

A mask says nothing but how long the rows are. What is read of it alone, and is the same for the shortest
rows, the longest and a mixture, is fixed for good reason ("is any token global?"), and is let through.
"""

from __future__ import annotations

import ast
import linecache
import site
import sys
import sysconfig
import traceback
from itertools import zip_longest
from pathlib import Path
from types import FunctionType
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from anyshape.backends.base import Tensors, quiet
from anyshape.building.errors import BuildError
from anyshape.building.functions import functions_traced
from anyshape.padding import DATA, InputSpec

# What gives Python a number, a truth or a list, and what torch answers to it is not recorded.
READS = {
    *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__array__"),
    *("__dlpack__", "item", "tolist", "numpy", "equal", "allclose", "is_nonzero"),
}
FROM_LISTS = {"tensor", "as_tensor", "asarray", "new_tensor"}  # they read the tensors in a list, one by one
SHAPES = {"size", "numel", "nelement"}  # and the attribute `shape`
COUNTED = {"__len__", "unbind"}  # frozen where the number of positions depends on values; a loop unbinds
PRINTED = {"__repr__", "__format__", "__str__"}  # for people only
# The result knows the shape of what it is made from, and no value of it.
VALUELESS = {
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
}
VALUE = "a value that depends on the input"
VALUES, LENGTHS = 1, 2  # what a tensor derives from: values of the input, or only how long its rows are
OURS = tuple(str(Path(file).parent) + "/" for file in (torch.__file__, __file__))


class Read:
    """One look of the model's Python code at a value. place: where in its source; value: what it saw."""

    def __init__(self, kinds: int, place: str, value: Any) -> None:
        self.kinds = kinds
        self.place = place
        self.value = repr(value)


def check_values(model: torch.nn.Module, inputs: Sequence[InputSpec], examples: Sequence[Tensors]) -> None:
    """Trace `model` and raise BuildError, which names file and line, if its Python code reads a value.

    examples: inputs of one shape whose rows have other lengths each time; the first alone is traced unless
    something is read of the mask. A model that cannot be traced is none of this function's business.
    """
    kinds = [VALUES if spec.kind == DATA else LENGTHS for spec in inputs]
    first = _reads(model, kinds, examples[0])
    for read in first:
        if read.kinds & VALUES:
            raise _frozen(read.place, VALUE)
    if not first:
        return
    for example in examples[1:]:
        again = _reads(model, kinds, example)
        for one, other in zip_longest(first, again):
            read = one or other
            if one is None or other is None or (one.place, one.value) != (other.place, other.value):
                raise _frozen(read.place, "how long the rows of the mask are")


def check_export(error: Exception) -> None:
    """Raise the same BuildError where torch.export stopped at such a read, for it freezes nothing."""
    if "DataDependent" in type(error).__name__:
        raise _frozen(place_of(error), VALUE) from error


def place_of(error: Exception) -> str:
    """The innermost line of other people's code that an error of torch's came from."""
    found = [step for step in traceback.walk_tb(error.__traceback__) if not _ours(step[0])]
    return _line(*found[-1]) if found else "its code"


def model_line() -> str:
    """The innermost line of other people's code that is running, "" for none."""
    frame = _model_frame()
    return _line(frame) if frame is not None else ""


def _frozen(place: str, what: str) -> BuildError:
    return BuildError(
        f"handler.model: {place} reads {what} in Python, and every input would get what one example got: "
        "write it with tensors (torch.where, torch.gather), or keep it out of the model"
    )


def _reads(model: torch.nn.Module, kinds: Sequence[int], example: Tensors) -> List[Read]:
    example = tuple(tensor.clone() for tensor in example)
    followed = Followed(example, kinds)
    try:
        with torch.no_grad(), quiet(), functions_traced(), _Derived(followed), _Reading(followed):
            torch.jit.trace(model, example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    except Exception:
        return followed.reads  # compiling says why
    return followed.reads


class Followed:
    """What derives from the inputs: the memory that holds it, and what was read of it."""

    def __init__(self, inputs: Tensors, kinds: Sequence[int]) -> None:
        self.reads: List[Read] = []
        self.in_python = False  # inside a function of torch that is written in Python
        self._kinds: Dict[Any, int] = {}
        self._sized: Set[Any] = set()  # memory whose number of positions depends on values
        for tensor, kind in zip(inputs, kinds):
            self.mark([tensor], kind)

    def of(self, values: Any) -> int:
        """What the tensors among `values` derive from, together."""
        found = 0
        for tensor in _tensors(values):
            found |= self._kinds.get(_memory(tensor), 0)
        return found

    def mark(self, values: Any, kinds: int) -> None:
        for tensor in _tensors(values):
            memory = _memory(tensor)
            if memory is not None:
                self._kinds[memory] = self._kinds.get(memory, 0) | kinds

    def mark_sized(self, values: Any) -> None:
        self._sized.update(_memory(tensor) for tensor in _tensors(values))

    def sized(self, values: Any) -> bool:
        return any(_memory(tensor) in self._sized for tensor in _tensors(values))

    def note(self, kinds: int, value: Any) -> None:
        frame = _model_frame()
        if not _checks_only(frame):
            self.reads.append(Read(kinds, "its code" if frame is None else _line(frame), value))


class _Derived(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, below all of torch's own Python: results derive from arguments."""

    def __init__(self, followed: Followed) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.followed = followed

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        kwargs = kwargs or {}
        followed = self.followed
        kinds = followed.of([args, kwargs])
        result = func(*args, **kwargs)
        if not kinds:
            return result
        name = func.__name__.partition(".")[0]
        if name == "_local_scalar_dense":
            # While an operation runs that is recorded as a whole, there is no tracing state.
            if followed.in_python and torch._C._get_tracing_state() is not None:
                followed.note(kinds, result)
        elif name not in VALUELESS:
            followed.mark(result, kinds)
            if _sized_by_values(func, name, args) or (name == "index" and followed.sized(args[1])):
                followed.mark_sized(result)
        return result


class _Reading(TorchFunctionMode):
    """Sees what Python asks of a tensor."""

    def __init__(self, followed: Followed) -> None:
        super().__init__()
        self.followed = followed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Mapping[str, Any]] = None,
    ) -> Any:
        kwargs = kwargs or {}
        followed = self.followed
        name = getattr(func, "__name__", "")
        outer = followed.in_python
        followed.in_python = isinstance(func, FunctionType) and name not in PRINTED | READS
        try:
            result = func(*args, **kwargs)
        finally:
            followed.in_python = outer
        if name in READS:
            kinds = followed.of([args, kwargs])
            if kinds:
                followed.note(kinds, result)
        elif name in FROM_LISTS:
            listed = [value for value in (*args, *kwargs.values()) if isinstance(value, (list, tuple))]
            kinds = followed.of(listed)
            if kinds:
                followed.note(kinds, result)
        elif name in SHAPES or (name == "__get__" and _attribute(func) == "shape"):
            if followed.sized(args):
                followed.mark(result, followed.of(args))
        elif name in COUNTED and followed.sized(args) and not _dim(args, kwargs):
            followed.note(followed.of(args), len(args[0]))
        return result


def _dim(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("dim", 0)


def _attribute(func: Any) -> str:
    return getattr(getattr(func, "__self__", None), "__name__", "")


def _sized_by_values(func: Any, name: str, args: Tuple[Any, ...]) -> bool:
    """Whether the shape of this operation's result depends on values."""
    if name == "index":  # by numbers: as many as there are numbers; by truths: as many as are true
        return any(i.dtype in (torch.bool, torch.uint8) for i in _tensors(args[1]))
    return torch.Tag.dynamic_output_shape in getattr(func, "tags", ())


def _memory(tensor: torch.Tensor) -> Any:
    """A key for the memory that a tensor lies in; None for kinds of tensors that have none."""
    try:
        if hasattr(tensor, "untyped_storage"):
            return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        return StorageWeakRef(tensor.storage())  # type: ignore[no-untyped-call]  # torch 1
    except (NotImplementedError, RuntimeError):
        return None


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _model_frame() -> Any:
    """The innermost frame of the model's own code."""
    frame: Any = sys._getframe(1)
    while frame is not None and _ours(frame):
        frame = frame.f_back
    return frame


def _ours(frame: Any) -> bool:
    return bool(frame.f_code.co_filename.startswith((*OURS, "<")))


def _checks_only(frame: Any) -> bool:
    """Whether the read belongs to an `assert` or to torch._check, which decide nothing."""
    inner: Any = sys._getframe(1)
    while inner is not frame and inner is not None:
        if inner.f_code.co_name.startswith("_check") and inner.f_code.co_filename == torch.__file__:
            return True
        inner = inner.f_back
    if frame is None:
        return False
    try:
        statements = ast.walk(ast.parse("".join(linecache.getlines(frame.f_code.co_filename))))
    except SyntaxError:
        return False
    asserts = [node for node in statements if isinstance(node, ast.Assert) and not _names(node)]
    return any(node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno) for node in asserts)


def _names(statement: ast.Assert) -> bool:
    """Whether what it asks is kept under a name, for others to decide by."""
    return any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement))


def _line(frame: Any, number: int = 0) -> str:
    """``transformers/models/x/modeling_x.py:12 (`if y.any():`)``"""
    path, number = frame.f_code.co_filename, number or frame.f_lineno
    text = linecache.getline(path, number).strip()
    for folder in (*site.getsitepackages(), sysconfig.get_path("purelib"), str(Path.cwd())):
        if path.startswith(folder + "/"):
            path = path[len(folder) + 1 :]
    return f"{path}:{number}" + (f" (`{text}`)" if text else "")
