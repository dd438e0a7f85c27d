"""AWS Inferentia 2 and Trainium: programs compiled by torch-neuronx, run on NeuronCores."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import torch

from anyshape.backends.base import Run, Tensors, as_tuple, quiet
from anyshape.backends.neuron import OPTIONS, NeuronBackend, words
from anyshape.backends.neuron_cores import instance_family, on_one_core
from anyshape.backends.parts import Parts
from anyshape.errors import ConfigError

TARGETS = ("inf2", "trn1", "trn1n", "trn2")
DISTRIBUTED = "neuronx_distributed"
WEIGHTS = "weights.pt"  # of an archive whose programs have theirs apart
LOADING = {
    "now": (),
    "lazy": ("lazy_load",),
    "async": ("async_load",),
    "lazy_async": ("lazy_load", "async_load"),
}
INLINE, SEPARATE, BUCKET_MODEL, MODEL_BUILDER = "inline", "separate", "bucket_model", "model_builder"
KINDS = (INLINE, SEPARATE, BUCKET_MODEL, MODEL_BUILDER)


class NeuronX(NeuronBackend):
    """For Inf2 and Trn1.

    target: the family of instances to compile for, one of TARGETS; needed with `off_device`, and found out on
    a device. The archive records it and runs nowhere else. fallback is off: an unknown operator fails the
    build. loading: when programs go to their core: now, lazy (with the first call), async (in the
    background).

    weights: `inline`, every program has its own; `separate`, outside of the programs, one copy in the
    archive, moved to the device by each program; `bucket_model`, the SDK's own program of several shapes;
    `model_builder`, that of neuronx-distributed, one set on the device for all shapes.
    """

    name = "neuronx"
    module = "torch_neuronx"
    package = "neuronx-cc"
    bytes_per_core = 16 * 2**30
    options = {**OPTIONS, "fallback": False, "target": None, "weights": INLINE, "loading": "now"}

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.weights, self.loading = self.settings["weights"], self.settings["loading"]
        for key, allowed in (("weights", KINDS), ("loading", tuple(LOADING))):
            if self.settings[key] not in allowed:
                raise ConfigError(
                    f"handler.backend_options.{key} must be one of {', '.join(allowed)}, not "
                    f"{self.settings[key]!r}"
                )
        self.target = self._target()
        if self.weights != INLINE:
            self.refuse_together(f"weights: {self.weights}", dynamic_batch=True, fallback=True)
            if self.cores > 1:
                self.refuse_together(f"weights: {self.weights}", cores=self.cores)
        if self.dynamic_batch:
            self.refuse_together("dynamic_batch", fallback=True)
        if self.settings["off_device"]:
            self.refuse_together("off_device", fallback=True)
        if self.weights in (BUCKET_MODEL, MODEL_BUILDER):
            self.refuse_together(f"weights: {self.weights}", off_device=True)
            if self.loading != "now":
                self.refuse_together(f"weights: {self.weights}", loading=self.loading)

    def _target(self) -> Optional[str]:
        """The target that the recipe names: as the option, or among the compiler's arguments."""
        args = words(self.settings["compiler_args"])
        found = [word.partition("=")[2] for word in args if word.startswith("--target=")]
        found += [args[i + 1] for i, word in enumerate(args[:-1]) if word == "--target"]
        named = {self.settings["target"], *found} - {None}
        if len(named) > 1 or not named <= set(TARGETS):
            raise ConfigError(
                f"handler.backend_options.target must be one of {', '.join(TARGETS)}, not "
                f"{' and '.join(map(repr, sorted(map(str, named))))}"
            )
        if not named and self.settings["off_device"]:
            raise ConfigError(
                "handler.backend_options.target is missing: off the device the compiler must be told what "
                "to compile "
                f"for, one of {', '.join(TARGETS)}"
            )
        return next(iter(named), None)

    def sdk(self) -> Any:
        if self.settings["off_device"] and instance_family() is None:
            # Where there is no device, the SDK asks for the platform before it is imported.
            os.environ.setdefault("NEURON_PLATFORM_TARGET_OVERRIDE", str(self.target))
        return super().sdk()

    def versions(self) -> Dict[str, str]:
        versions = super().versions()
        if self.weights == MODEL_BUILDER:
            versions[DISTRIBUTED] = str(getattr(distributed(), "__version__", "unknown"))
        return versions

    def must_match(self) -> Sequence[str]:
        return (*super().must_match(), DISTRIBUTED)  # absent on both sides where it is not used

    def check_versions(self, built: Mapping[str, str]) -> None:
        super().check_versions(built)
        target, here = built.get("target"), instance_family()
        if target and here and target != here:
            raise ConfigError(
                f"the archive was compiled for {target}, and this is an {here} instance: build it again with "
                f"handler.backend_options.target: {here}"
            )

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        if self.weights == BUCKET_MODEL:
            (file,) = set(files.values())
            one = super().load(folder, {BUCKET_MODEL: file})[BUCKET_MODEL]
            return dict.fromkeys(files, one)
        if self.weights == MODEL_BUILDER:
            return self._load_builder(folder, files)
        if self.weights == SEPARATE:
            self._parts = Parts(next(iter((folder / file).parent for file in files.values())))
            with quiet():
                self._weights = torch.load(io.BytesIO(self._parts.read(WEIGHTS)), weights_only=True)
        try:
            return super().load(folder, files)
        finally:
            self._weights = self._parts = None

    def open(self, path: Path) -> Any:
        if self.weights != SEPARATE:
            return super().open(path)
        file = io.BytesIO(self._parts.read(path.name))
        return torch.jit.load(file).eval()  # type: ignore[no-untyped-call]

    def ready(self, sdk: Any, program: Any, name: str) -> Run:
        if self.weights == SEPARATE:
            # The same tensors for every program, so that the host holds them once; then to the core, or every
            # call would move them there.
            sdk.replace_weights(program, self._weights)
            sdk.move_trace_to_device(program, 0)
        return super().ready(sdk, program, name)

    def _load_builder(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        sdk, library = self.sdk(), distributed()
        (file,) = set(files.values())
        with quiet(), on_one_core(sdk):
            model = library.NxDModel.load(str(folder / file))
            model.set_weights([torch.load((folder / file).parent / WEIGHTS, weights_only=True)])
            model.to_neuron()
        return {name: Tagged(model, name) for name in files}

    _parts: Any = None
    _weights: Any = None


class Tagged:
    """One of the shapes of a model that neuronx-distributed made."""

    def __init__(self, model: Any, tag: str) -> None:
        self.model, self.tag = model, tag

    def __call__(self, *tensors: torch.Tensor) -> Tensors:
        return as_tuple(self.model(*tensors, model_name=self.tag))


def distributed() -> Any:
    """neuronx-distributed. Raises ConfigError where it is not installed, or too old to have what is
    needed."""
    try:
        import neuronx_distributed

        _wanted: Tuple[Any, ...] = (neuronx_distributed.ModelBuilder, neuronx_distributed.NxDModel)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"handler.backend_options.weights: model_builder needs neuronx-distributed ({error}): pip "
            "install it from "
            "AWS's repository, or choose weights: separate"
        ) from None
    return neuronx_distributed
