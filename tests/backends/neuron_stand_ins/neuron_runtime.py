"""What the stand-ins for AWS Neuron's SDK share: a runtime on the CPU that is as strict as a device.

There is no Neuron device here. These modules run the traced model on the CPU, hidden in one operator as the
SDK's programs are, and refuse what the SDK's documentation says is refused: another shape or dtype than was
compiled, a program loaded without the SDK imported (the operator is unknown then), a core that another
process holds, more than a core's memory, results that are not numbers, weights on the wrong side.
`torch.jit.load` puts a program on a core, as on a device.

NEURON_STAND_IN_CORES   how many cores the machine has (default 1; 0: a machine without a device)
NEURON_STAND_IN_MEMORY  bytes of a core (default 2 GB); every program brings its own weights
NEURON_STAND_IN_LOCKS   a folder with one lock file per core
NEURON_STAND_IN_LOG     a file that gets a line per compilation, load and move
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import tempfile
import warnings
import weakref
import zlib

import torch

_held: list = []  # the lock files of the cores that this process holds, until it ends
# by the address of its state: the program's cores, its bytes on each, whether weights moved
_loaded: dict = {}
_inner: dict = {}  # unpacked programs, by their id
_compiling: list = []  # not empty while a program is traced
_place: list = []  # the innermost placement context: (start, count)

LAZY, ASYNC, DYNAMIC = 0, 1, 2  # places in a program's state

_library = torch.library.Library("neuron", "DEF")
_library.define(
    "forward_1(Tensor[] inputs, Tensor[] weights, Tensor neff, Tensor state, str spec) -> Tensor[]"
)


def log(*words):
    path = os.environ.get("NEURON_STAND_IN_LOG")
    if path:
        with open(path, "a") as file:
            file.write(" ".join(map(str, words)) + "\n")


def _forward(inputs, weights, neff, state, spec):
    wanted = json.loads(spec)
    if _compiling:  # needs no device
        return list(_tuple(_unpacked(wanted, neff)(*[t.clone() for t in inputs])))
    entry = _loaded.get(state.data_ptr()) or _load(wanted, state)
    _check(inputs, wanted, bool(state[DYNAMIC]))
    if wanted["weights"] and not entry["moved"]:
        warnings.warn("separated weights are on the CPU: every call moves them", stacklevel=2)
    program = _unpacked(wanted, neff)
    names = [name for name, _ in program.named_parameters()] if wanted["weights"] else []
    for (name, parameter), weight in zip(program.named_parameters(), weights):
        if parameter.shape != weight.shape or parameter.dtype != weight.dtype:
            raise RuntimeError(f"the weight {name} has another shape or dtype than was compiled")
        parameter.data = weight
    if names and len(weights) != len(names):
        raise RuntimeError("the program was compiled with other weights")
    rows = wanted["shapes"][0][0]
    chunks = [[t.clone() for t in inputs]]
    if bool(state[DYNAMIC]):  # split and filled, as the SDK does
        count = len(inputs[0])
        chunks = [[_filled(t[start : start + rows], rows) for t in inputs] for start in range(0, count, rows)]
    with torch.no_grad():
        results = [_tuple(program(*chunk)) for chunk in chunks]
    outputs = [
        torch.cat(parts)[: len(inputs[0])] if bool(state[DYNAMIC]) else parts[0] for parts in zip(*results)
    ]
    if any(t.is_floating_point() and not bool(torch.isfinite(t).all()) for t in outputs):
        raise RuntimeError("execution failed with status 1003: numerical error (not a number)")
    log("run", wanted["program"], entry["cores"][entry["calls"] % len(entry["cores"])])
    entry["calls"] += 1
    return outputs


def _check(inputs, wanted, dynamic):
    if dynamic and len({len(tensor) for tensor in inputs}) > 1:
        raise ValueError("dynamic batching: dimension 0 differs between inputs")
    if len(inputs) != len(wanted["shapes"]):
        raise RuntimeError(f"compiled for {len(wanted['shapes'])} inputs, called with {len(inputs)}")
    for tensor, shape, dtype in zip(inputs, wanted["shapes"], wanted["dtypes"]):
        found = list(tensor.shape)
        if dynamic:
            found, shape = found[1:], shape[1:]
        if found != shape or str(tensor.dtype) != dtype:
            raise RuntimeError(f"compiled for {shape} {dtype}, called with {found} {tensor.dtype}")
        if not tensor.is_contiguous():
            raise RuntimeError("an input is not contiguous")
        if tensor.device.type != "cpu":
            raise RuntimeError("inputs must be CPU tensors")


_library.impl("forward_1", _forward, "CPU")


def _tuple(outputs):
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def _filled(tensor, rows):
    missing = rows - len(tensor)
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor.clone()


def _unpacked(wanted, neff):
    if wanted["program"] not in _inner:
        written = zlib.decompress(neff.numpy().tobytes())
        _inner[wanted["program"]] = _jit_load(io.BytesIO(written)).eval()
    return _inner[wanted["program"]]


@contextlib.contextmanager
def compiling():
    _compiling.append(True)
    try:
        yield
    finally:
        _compiling.pop()


def device_cores():
    return int(os.environ.get("NEURON_STAND_IN_CORES", 1))


def take_cores():
    """Hold as many cores as the environment says, until this process ends. RuntimeError if they are taken."""
    if _held:
        return
    cores = device_cores()
    if not cores:
        raise RuntimeError("nrt_init failed: no Neuron device")
    visible = os.environ.get("NEURON_RT_VISIBLE_CORES")
    names = _listed(visible) if visible else list(range(cores))
    wanted = len(names) if visible else int(os.environ.get("NEURON_RT_NUM_CORES", 0)) or cores
    folder = os.environ.get("NEURON_STAND_IN_LOCKS", tempfile.gettempdir())
    files = []
    for name in names:
        file = os.open(os.path.join(folder, f"neuron-core-{name}.lock"), os.O_WRONLY | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        files.append(file)
        if len(files) == wanted:
            _held.extend(files)
            return
    raise RuntimeError(f"nrt_init failed: {len(files)} of {wanted} cores are free; others hold the rest")


def _listed(visible):
    spans = [part.split("-") for part in visible.split(",")]
    return [core for span in spans for core in range(int(span[0]), int(span[-1]) + 1)]


def end_process():
    """What the end of a process does: its cores are free again. For tests that share one."""
    for file in _held:
        os.close(file)
    _held.clear()
    _loaded.clear()


def _load(wanted, state, cores=None):
    """Put a program on cores: those asked for, those of the context, or the least used one."""
    take_cores()
    if cores is None:
        start, count = _place[-1] if _place else (-1, -1)
        used = dict.fromkeys(range(len(_held)), 0)
        for entry in _loaded.values():
            for core in entry["cores"]:
                used[core] += 1
        start = min(used, key=lambda core: (used[core], core)) if start == -1 else start
        cores = list(range(start, start + max(count, 1)))
    if not cores or max(cores) >= len(_held):
        raise ValueError(f"cores {cores} are asked for, and this process has {len(_held)}")
    entry = {"cores": cores, "bytes": wanted["bytes"], "moved": False, "calls": 0, "state": state}
    entry["program"] = wanted["program"]
    _loaded[state.data_ptr()] = entry
    _check_memory()
    log("load", wanted["program"], *cores)
    return entry


def _check_memory():
    budget = int(os.environ.get("NEURON_STAND_IN_MEMORY", 2_000_000_000))
    for core in range(len(_held)):
        used = sum(entry["bytes"] for entry in _loaded.values() if core in entry["cores"])
        if used > budget:
            raise RuntimeError(f"NRT_RESOURCE: {used} bytes do not fit {budget} of device memory")


def unload(state):
    _loaded.pop(state.data_ptr(), None)


def is_program(script):
    return isinstance(script, torch.jit.ScriptModule) and hasattr(script, "neff") and hasattr(script, "state")


def spec_of(script):
    return json.loads(script.spec.numpy().tobytes())


def _hold(script, cores=None):
    entry = _load(spec_of(script), script.state, cores)
    weakref.finalize(script, unload, script.state)
    return entry


_jit_load = getattr(torch.jit.load, "plain", torch.jit.load)


def _loading(file, *args, **kwargs):
    """torch.jit.load with the SDK imported: a program goes to its core, unless it is lazy."""
    script = _jit_load(file, *args, **kwargs)
    for program in script.modules():
        if is_program(program) and not bool(program.state[LAZY]):
            _hold(program)
    return script


_loading.plain = _jit_load
torch.jit.load = _loading


def replicate(script, cores):
    """What DataParallel does: unload, and load on each of these cores."""
    if spec_of(script)["weights"]:
        raise NotImplementedError("DataParallel does not take programs with separated weights")
    unload(script.state)
    _hold(script, cores)


def set_cores(script, start, count):
    if not is_program(script):
        return  # documented: nothing happens to what was not compiled
    take_cores()
    if start < -1 or count < -1 or count == 0 or max(start, 0) + max(count, 1) > len(_held):
        raise ValueError(f"nc_count {count} from {start} is no number of NeuronCores of this process")
    unload(script.state)
    with cores_context(start, count):
        _hold(script)


@contextlib.contextmanager
def cores_context(start=-1, count=-1):
    take_cores()
    if start < -1 or count < -1 or count == 0 or max(start, 0) + max(count, 1) > len(_held):
        raise ValueError(f"nc_count {count} from {start} is no number of NeuronCores of this process")
    _place.append((start, count))
    try:
        yield
    finally:
        _place.pop()


def all_cores():
    take_cores()
    return len(_held)


def move(script, device_id):
    wanted = spec_of(script)
    if not wanted["weights"]:
        raise RuntimeError("the weights of this program are inside of it")
    take_cores()
    if not 0 <= device_id < len(_held):
        raise ValueError(f"there is no core {device_id}")
    entry = _loaded.get(script.state.data_ptr()) or _hold(script, [device_id])
    if not entry["moved"]:
        entry["moved"] = True
        entry["bytes"] += wanted["weight_bytes"]
        _check_memory()
    log("move", wanted["program"], device_id)


def moved(script):
    return _loaded.get(script.state.data_ptr(), {}).get("moved", False)


class DataParallel:
    """Splits dimension 0 over cores; without dynamic batching each part has the compiled size."""

    def __init__(self, model, device_ids=None, dim=0, set_dynamic_batching=True):
        ids = list(range(all_cores())) if device_ids is None else list(device_ids)
        self.device_ids = [int(str(i).replace("nc:", "")) for i in ids]
        self.model, self.dim, self.dynamic = model, dim, set_dynamic_batching
        replicate(model, self.device_ids)

    def disable_dynamic_batching(self):
        self.dynamic = False

    def __call__(self, *inputs):
        count = len(self.device_ids)
        compiled = spec_of(self.model)["shapes"][0][self.dim]
        if not self.dynamic and inputs[0].shape[self.dim] != compiled * count:
            raise ValueError(
                f"{inputs[0].shape[self.dim]} rows on {count} cores, compiled for {compiled} each"
            )
        size = compiled if not self.dynamic else max(1, inputs[0].shape[self.dim] // count)
        parts = zip(*[tensor.split(size, self.dim) for tensor in inputs])
        results = [_tuple(self.model(*[p.contiguous() for p in part])) for part in parts]
        return tuple(torch.cat(outputs, self.dim) for outputs in zip(*results))
