"""Finds the model that a recipe names: a hub id, a folder, a package's folder or a function."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

from builder.errors import BuildError, first_line
from handler.config import HandlerConfig

PACKAGE = "package:"


class Source:
    """Where the model and the tokenizer of a recipe come from.

    `model` in the recipe is one of
        bert-base-cased            a hub id, fetched by transformers (or found in its cache)
        ./my-model                 a folder in Hugging Face layout, relative to the recipe or to here
        package:my_package/model   a folder inside an installed package
        my_module:make_model       a function without arguments that returns an nn.Module; the module is
                                   found beside the recipe, here, or among the installed ones
    """

    def __init__(self, config: HandlerConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder

    def model(self, auto_class: str) -> torch.nn.Module:
        """The model in eval mode and float32; `auto_class` is the transformers class that loads it.

        Raises BuildError if it cannot be found or loaded.
        """
        name = self.config.model
        if _is_factory(name):
            model = self._call(name)
        else:
            import transformers

            where = self._resolve("model", name)
            loader = getattr(transformers, auto_class)
            try:
                # float32 whatever the checkpoint holds: the recipe's dtype decides, later and in one place.
                try:
                    loaded = loader.from_pretrained(where, dtype=torch.float32, output_loading_info=True)
                except TypeError:  # transformers before 4.56 calls it torch_dtype
                    loaded = loader.from_pretrained(
                        where, torch_dtype=torch.float32, output_loading_info=True
                    )
            except Exception as error:  # a folder may hold anything, and transformers raises anything
                raise BuildError(f"handler.model: {name} cannot be loaded: {first_line(error)}") from error
            model, info = loaded
            # A bare encoder may lack a pooler that nothing asks for; a head must be there.
            missing = sorted(info["missing_keys"])
            if missing and auto_class != "AutoModel":
                named = ", ".join(missing[:3])
                raise BuildError(
                    f"handler.model: {name} has no weights for {named}: it was saved for another task"
                )
        if not isinstance(model, torch.nn.Module):
            raise BuildError(f"handler.model: {name} returned {type(model).__name__}, not an nn.Module")
        return model.eval()

    def tokenizer(self) -> Any:
        """The tokenizer of the recipe's `tokenizer`, or of its model. Raises BuildError."""
        import transformers

        name = self.config.tokenizer or self.config.model
        if _is_factory(name):
            raise BuildError("handler.tokenizer is missing: a model made by a function brings none")
        where = self._resolve("tokenizer" if self.config.tokenizer else "model", name)
        try:
            return transformers.AutoTokenizer.from_pretrained(where)
        except Exception as error:
            raise BuildError(f"handler.tokenizer: {name} cannot be loaded: {first_line(error)}") from error

    def image_processor(self) -> Any:
        """The image processor in the model's folder or hub repository, or None for a function's model."""
        if _is_factory(self.config.model):
            return None
        import transformers

        try:
            return transformers.AutoImageProcessor.from_pretrained(
                self._resolve("model", self.config.model), use_fast=False
            )
        except (OSError, ValueError):
            return None

    def _resolve(self, key: str, name: str) -> str:
        if name.startswith(PACKAGE):
            package, _, inside = name[len(PACKAGE) :].partition("/")
            try:
                spec = importlib.util.find_spec(package)
            except (ImportError, ValueError):  # of a package inside one that does not exist, or of no name
                spec = None
            if spec is None or not spec.submodule_search_locations:
                raise BuildError(f"handler.{key}: the package {package} is not installed: pip install it")
            path = Path(spec.submodule_search_locations[0]) / inside
            if not path.is_dir():
                raise BuildError(f"handler.{key}: the package {package} has no folder {inside!r}")
            return str(path)
        for base in (self.folder, Path()):
            if (base / name).is_dir():
                return str(base / name)
        return name

    def _call(self, name: str) -> Any:
        module_name, _, function = name.partition(":")
        for folder in (str(Path.cwd()), str(self.folder)):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        try:
            factory = getattr(importlib.import_module(module_name), function)
        except Exception as error:  # the module's own errors, too
            raise BuildError(f"handler.model: {name} cannot be found: {first_line(error)}") from error
        try:
            return factory()
        except Exception as error:
            raise BuildError(f"handler.model: {name} failed: {first_line(error)}") from error


def _is_factory(name: str) -> bool:
    return ":" in name and not name.startswith(PACKAGE) and "/" not in name
