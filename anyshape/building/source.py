"""Finds the model that a recipe names: a hub id, a folder, a package's folder or a function."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

import torch

from anyshape.building.errors import BuildError, first_line
from anyshape.building.multi_vector_folder import MultiVector, read_multi_vector
from anyshape.building.ranking_folder import Ranking, read_ranking
from anyshape.building.sentence_files import Files
from anyshape.building.sentence_folder import Sentence, Sparse, read_sentence, read_sparse

Described = TypeVar("Described", bound=Sentence)

PACKAGE = "package:"
UNUSED = ("pooler",)  # parts of a bare model that no task asks: they may be missing from its file
ADAPTER = "adapter_config.json"
NAMED = 3  # weights that a message names


class Source:
    """Where the model and the tokenizer of a recipe come from.

    `model` in the recipe is one of
        bert-base-cased            a hub id, fetched by transformers (or found in its cache)
        ./my-model                 a folder in Hugging Face layout, relative to the recipe or to here
        package:my_package/model   a folder inside an installed package
        my_module:make_model       a function without arguments that returns an nn.Module; the module is
                                   found beside the recipe, here, or among the installed ones
    """

    def __init__(
        self, model: str, tokenizer: Optional[str], folder: Path, trust_remote_code: bool = False
    ) -> None:
        """`folder` is the recipe's. `trust_remote_code`: Python code among a model's files may run here."""
        self.name, self.tokenizer_name, self.folder = model, tokenizer, folder
        self.trusts = trust_remote_code

    def model(self, auto_class: str, subfolder: str = "") -> torch.nn.Module:
        """The model in eval mode and float32; `auto_class` is the transformers class that loads it.

        Raises BuildError if it cannot be found or loaded, or if its file lacks weights that the task uses:
        transformers would draw them at random, other ones at every build.
        """
        name = self.name
        model = self._call(name) if _is_factory(name) else self._load(name, auto_class, subfolder)
        if not isinstance(model, torch.nn.Module):
            raise BuildError(f"handler.model: {name} returned {type(model).__name__}, not an nn.Module")
        return model.eval()

    def _load(self, name: str, auto_class: str, subfolder: str) -> Any:
        import transformers

        where = self._resolve("model", name)
        _check_adapter(name, where, subfolder)
        # Never left open: transformers would ask at the terminal.
        files = {"subfolder": subfolder, "trust_remote_code": self.trusts}
        # Weights of another shape are allowed here, so that they can be named.
        options = {**files, "output_loading_info": True, "ignore_mismatched_sizes": True}
        try:
            if auto_class == "AutoModel" and _has_own_encoder(transformers, where, files):
                auto_class = "AutoModelForTextEncoding"
            if auto_class == "AutoModelForQuestionAnswering" and _reads_pages(transformers, where, files):
                auto_class = "AutoModelForDocumentQuestionAnswering"
            if auto_class == "AutoModelForSemanticSegmentation":
                auto_class = _saved_as(transformers, where, files, "Segmentation") or auto_class
            loader = getattr(transformers, auto_class)
            # float32 whatever the checkpoint holds: the recipe's dtype decides, later and in one place.
            try:
                model, info = loader.from_pretrained(where, dtype=torch.float32, **options)
            except TypeError:  # transformers before 4.56 calls it torch_dtype
                model, info = loader.from_pretrained(where, torch_dtype=torch.float32, **options)
        except Exception as error:  # a folder may hold anything, and transformers raises anything
            raise self._not_loaded("model", name, error) from error
        # A bare encoder may lack a pooler that nothing asks for; a head must be there.
        _check_weights(name, info, UNUSED if auto_class == "AutoModel" else ())
        return model

    def sentence(self) -> Sentence:
        """How the model makes one vector of a text, as its own files say.

        Raises BuildError, which names the file or the key.
        """
        return self._described(read_sentence)

    def sparse(self) -> Sparse:
        """How the model makes a sparse vector of a text, as its own files say. Raises BuildError."""
        return self._described(read_sparse)

    def multi_vector(self) -> MultiVector:
        """How the model makes a vector of each token, as its own files say. Raises BuildError."""
        return self._described(read_multi_vector)

    def ranking(self) -> Ranking:
        """How the model scores a query and a text, as its own files say. Raises BuildError."""
        return self._described(read_ranking)

    def _described(self, read: Callable[[Files], Described]) -> Described:
        """What `read` finds in the model's files; a model of a function has none."""
        name = self.name
        if _is_factory(name):
            return read(lambda file: None)
        where = self._resolve("model", name)
        try:
            return read(lambda file: _file(where, file))
        except BuildError as error:
            raise BuildError(f"handler.model: {name}: {error}") from None
        except (AttributeError, TypeError, ValueError) as error:  # the files may hold anything
            raise BuildError(
                f"handler.model: {name}: the files of sentence-transformers in it make no sense "
                f"({first_line(error)})"
            ) from error

    @property
    def brings_tokenizer(self) -> bool:
        """Whether there is a tokenizer to look for: a model made by a function brings none."""
        return bool(self.tokenizer_name) or not _is_factory(self.name)

    def tokenizer(self, subfolder: str = "") -> Any:
        """The tokenizer of the recipe's `tokenizer`, or of its model. Raises BuildError."""
        import transformers

        name = self.tokenizer_name or self.name
        if _is_factory(name):
            raise BuildError("handler.tokenizer is missing: a model made by a function brings none")
        where = self._resolve("tokenizer" if self.tokenizer_name else "model", name)
        inside = "" if self.tokenizer_name else subfolder
        try:
            return transformers.AutoTokenizer.from_pretrained(
                where, subfolder=inside, trust_remote_code=self.trusts
            )
        except Exception as error:
            raise self._not_loaded("tokenizer", name, error) from error

    def _not_loaded(self, key: str, name: str, error: Exception) -> BuildError:
        if not self.trusts and isinstance(error, ValueError) and "trust_remote_code" in str(error):
            return BuildError(
                f"handler.{key}: {name} brings Python code of its own, which would run here: read it, and "
                "set handler.trust_remote_code: true if you trust it"
            )
        return BuildError(f"handler.{key}: {name} cannot be loaded: {first_line(error)}")

    def image_processor(self) -> Any:
        """The image processor in the model's folder or hub repository, or None for a function's model."""
        if _is_factory(self.name):
            return None
        import transformers

        try:
            return transformers.AutoImageProcessor.from_pretrained(
                self._resolve("model", self.name), use_fast=False, trust_remote_code=self.trusts
            )
        except (OSError, ValueError):
            return None

    def feature_extractor(self) -> Any:
        """The feature extractor of sounds in the model's folder or hub repository, or None."""
        if _is_factory(self.name):
            return None
        import transformers

        try:
            return transformers.AutoFeatureExtractor.from_pretrained(
                self._resolve("model", self.name), trust_remote_code=self.trusts
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


def _has_own_encoder(transformers: Any, where: str, files: Dict[str, Any]) -> bool:
    """Whether the model is an encoder and a decoder of which texts need the encoder alone, as T5."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    config = transformers.AutoConfig.from_pretrained(where, **files)
    if type(config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return False
    return bool(MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)].__name__.endswith("EncoderModel"))


def _reads_pages(transformers: Any, where: str, files: Dict[str, Any]) -> bool:
    """Whether the model answers questions about documents alone, as LayoutLM."""
    from transformers.models.auto import modeling_auto as auto

    kind = transformers.AutoConfig.from_pretrained(where, **files).model_type
    return (
        kind in auto.MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES
        and kind not in auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
    )


def _saved_as(transformers: Any, where: str, files: Dict[str, Any], ending: str) -> Optional[str]:
    """The class of transformers that the model was saved as, if its name ends so: several auto classes load
    models that segment, and none the one of Conditional DETR."""
    names = transformers.AutoConfig.from_pretrained(where, **files).architectures or ()
    return next((name for name in names if name.endswith(ending) and hasattr(transformers, name)), None)


def _is_factory(name: str) -> bool:
    return ":" in name and not name.startswith(PACKAGE) and "/" not in name


def _file(where: str, name: str) -> Optional[Path]:
    """A file of a model in a folder or on the hub, or None if the model has none of this name.

    Raises BuildError if the hub cannot be asked: that it has none would then be a guess.
    """
    if Path(where).is_dir():
        path = Path(where) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(where, name))
    except LocalEntryNotFoundError as error:
        raise BuildError(
            f"{name} is not in the cache, and the hub cannot be asked for it: {first_line(error)}"
        ) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # no such model, no access, no network
        raise BuildError(f"cannot be loaded: {first_line(error)}") from error


def _check_adapter(name: str, where: str, subfolder: str) -> None:
    """Raises BuildError for a model with an adapter: without peft, transformers leaves it out silently."""
    file = f"{subfolder}/{ADAPTER}" if subfolder else ADAPTER
    try:
        found = _file(where, file)
    except BuildError:  # the hub cannot be asked; loading says so, if that matters
        return
    if found is not None:
        raise BuildError(
            f"handler.model: {name} has an adapter ({file}), which is not applied here: merge it into the "
            "model (peft's merge_and_unload) and save that"
        )


def _check_weights(name: str, info: Dict[str, Any], unused: Sequence[str]) -> None:
    """Raises BuildError that names the weights which a model's file lacks or has in other shapes."""
    other = sorted(info["mismatched_keys"])
    if other:
        key, found, wanted = other[0]
        more = f", and {len(other) - 1} more" if len(other) > 1 else ""
        raise BuildError(
            f"handler.model: {name} has weights of another shape than its config.json says: {key} is "
            f"{tuple(found)} and not {tuple(wanted)}{more}"
        )
    missing = [key for key in sorted(info["missing_keys"]) if not set(key.split(".")) & set(unused)]
    if not missing:
        return
    strange = sorted(info["unexpected_keys"])
    instead = f", but for {_named(strange)}" if strange else ""
    raise BuildError(
        f"handler.model: {name} has no weights for {_named(missing)}{instead}: it was saved for another "
        "task, or under other names"
    )


def _named(keys: List[str]) -> str:
    shown = ", ".join(keys[:NAMED])
    return shown if len(keys) <= NAMED else f"{shown} and {len(keys) - NAMED} more"
