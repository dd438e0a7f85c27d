"""An archive, loaded to answer requests without TorchServe.

answering = load_answering(Path("model_store/minilm.mar"), cores=1)
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Optional

from msgspec import structs

import anyshape.faces  # noqa: F401  # makes `handler` importable
from anyshape.errors import ConfigError
from anyshape.model import BucketedModel
from anyshape.packed import RECIPE, read_recipe, unpack
from anyshape.process import prepare_process
from anyshape.recipe import Recipe, read_yaml
from anyshape.settings import Settings
from handler.answering import Answering
from handler.apis.base import Served


def load_answering(archive: Path, cores: Optional[int] = None, name: str = "") -> Answering:
    """Load an archive, packed or unpacked, and warm it, as a TorchServe worker does.

    cores: threads of a call; by default the recipe's, else those that the process may use. name: what it is
    served as; by default the archive's own. Raises ConfigError if it cannot be loaded.
    """
    if not archive.exists():
        raise ConfigError(f"{archive} is not there: build it with `anyshape build`")
    name = name or archive.stem
    if archive.is_dir():
        return _loaded(archive, Recipe.from_mapping(read_yaml(archive / RECIPE)), cores, name)
    recipe = read_recipe(archive)
    with tempfile.TemporaryDirectory(prefix="anyshape-") as folder:
        unpack(archive, Path(folder))
        return _loaded(Path(folder), recipe, cores, name)


def _loaded(folder: Path, recipe: Recipe, cores: Optional[int], name: str) -> Answering:
    settings = Settings.of(recipe.handler)
    if cores is not None:
        settings = structs.replace(settings, threads=cores)
    prepare_process(settings, 1, folder)
    model = BucketedModel(folder, settings)
    model.warm_up()
    answering = Answering()
    answering.answer_for(Served(name, model))
    return answering
