"""Reads the files that sentence-transformers keeps beside a model, one kind of module at a time.

What is not known is refused by its name: served all the same, it would give other vectors.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from anyshape.building.errors import BuildError, first_line
from anyshape.building.pooling import Dense, LayerNorm, Normalize

Files = Callable[[str], Optional[Path]]  # a file of the model by its name, or None where it has none

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
PYLATE_DENSE = "pylate.models.Dense.Dense"  # the same layer, of tokens
SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"  # what a module may work on
TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
ACTIVATIONS = (
    *("Identity", "Tanh", "ReLU", "ReLU6", "LeakyReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish"),
    *("Sigmoid", "LogSigmoid", "Softplus", "Softsign", "Tanhshrink", "Hardtanh", "Hardsigmoid", "Hardswish"),
)
TRANSFORMER_KEYS = (
    *("transformer_task", "modality_config", "module_output_name", "processing_kwargs", "unpad_inputs"),
    *("query_length", "document_length", "query_expansion", "max_seq_length", "do_lower_case"),
    *("tokenizer_name_or_path", "backend"),
)
# Arguments of the transformer and its tokenizer that change no vector, or that the build decides itself.
HARMLESS = (
    *("attn_implementation", "torch_dtype", "dtype", "device_map", "low_cpu_mem_usage", "use_cache"),
    *("use_safetensors", "add_pooling_layer", "trust_remote_code", "padding_side", "use_fast"),
    "model_max_length",  # read on its own
)


def read_modules(files: Files) -> Tuple[Optional[List[str]], List[str]]:
    """The kinds of a model's modules and their folders; no kinds where it has no modules.json."""
    modules = read_json(files, MODULES, list)
    if modules is None:
        return None, []
    if not all(isinstance(module, dict) for module in modules):
        raise BuildError(f"{MODULES} holds no list of modules")
    return [_kind(module) for module in modules], [_path(module) for module in modules]


def _kind(module: Mapping[str, Any]) -> str:
    """The class of a module, whatever folder of sentence-transformers it lived in when it was saved."""
    kind = module.get("type")
    if not isinstance(kind, str) or not (kind.startswith("sentence_transformers.") or kind == PYLATE_DENSE):
        raise BuildError(
            f"{MODULES} has the module {kind!r}, which is code of the model's own and is not run"
        )
    return kind.rpartition(".")[2]


def _path(module: Mapping[str, Any]) -> str:
    path = module.get("path", "")
    if not isinstance(path, str) or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise BuildError(f"{MODULES} has the path {path!r}, which is not inside the model's folder")
    return path


def transformer_settings(files: Files, path: str) -> Tuple[str, Dict[str, Any]]:
    """The file that says how a transformer is used, and what it says; nothing if there is none."""
    for file in TRANSFORMER_FILES:
        name = join(path, file)
        settings = read_json(files, name)
        if settings:
            return name, settings
    return "", {}


def read_transformer(
    files: Files,
    path: str,
    usual: str = "feature-extraction",
    task: str = "feature-extraction",
    output: str = "last_hidden_state",
    feature: str = TOKENS,
    expands: bool = False,
) -> Tuple[Optional[int], bool]:
    """The most tokens and whether texts are lowered. Raises BuildError for what is not plain text.

    `task` is what the transformer must do (`usual` where it says nothing), `output` what it must return,
    which becomes the `feature`; `expands`: whether queries may be expanded.
    """
    name, settings = transformer_settings(files, path)
    if not settings:
        return None, False
    given = {key: value for key, value in settings.items() if not key.endswith(("_args", "_kwargs"))}
    only_known(given, name, TRANSFORMER_KEYS)
    modalities = settings.get("modality_config") or {"text": {"method_output_name": output}}
    text = modalities.get("text") or {}
    refused = {
        "transformer_task": settings.get("transformer_task", usual) != task,
        "module_output_name": settings.get("module_output_name", feature) != feature,
        "modality_config": set(modalities) != {"text"}
        or text.get("method", "forward") != "forward"
        or text.get("method_output_name") not in (output, [output]),
        "processing_kwargs": bool(settings.get("processing_kwargs")),
        "query_expansion": bool(settings.get("query_expansion")) and not expands,
        "tokenizer_name_or_path": bool(settings.get("tokenizer_name_or_path")),
    }
    for key, wrong in refused.items():
        if wrong:
            raise BuildError(f"{name} has {key} {settings.get(key)!r}, which is not known here")
    for key, value in settings.items():
        if key.endswith(("_args", "_kwargs")) and isinstance(value, dict):
            for option in value:
                if option not in HARMLESS:
                    raise BuildError(f"{name} has {key}.{option}, which is not known here")
    tokenizer = {**(settings.get("tokenizer_args") or {}), **(settings.get("processor_kwargs") or {})}
    limit = tokenizer.get("model_max_length", settings.get("max_seq_length"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise BuildError(f"{name} has max_seq_length {limit!r}, which is no number of tokens")
    return limit, bool(settings.get("do_lower_case"))


def read_module(kind: str, files: Files, path: str, works_on: Sequence[Optional[str]]) -> Optional[nn.Module]:
    """The module of this kind with its weights, or None for one that does nothing when it serves.

    works_on: what its files may say that it takes and gives; None for those that say nothing.
    Raises BuildError for what is not known.
    """
    name = join(path, "config.json")
    settings = read_json(files, name) or {}
    if kind == "Dropout":
        return None
    if kind in ("Normalize", "Dense"):
        for key, allowed in (("module_input_name", works_on), ("module_output_name", (None, *works_on))):
            if settings.get(key) not in allowed:
                raise BuildError(f"{name} has {key} {settings.get(key)!r}: only {works_on[-1]} is known here")
    try:
        if kind == "Normalize":
            only_known(settings, name, ("module_input_name", "module_output_name"))
            return Normalize()
        if kind == "LayerNorm":
            only_known(settings, name, ("dimension",))
            return _loaded(LayerNorm(settings["dimension"]), files, path)
        if kind == "Dense":
            return _loaded(_dense(settings, name), files, path)
    except (KeyError, TypeError) as error:
        raise BuildError(f"{name} cannot be read: {first_line(error)}") from None
    known = "Dense, LayerNorm, Normalize and Dropout"
    raise BuildError(f"{MODULES} has the module {kind}; after Transformer and Pooling, known are {known}")


def _dense(settings: Dict[str, Any], name: str) -> Dense:
    keys = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    only_known(settings, name, (*keys, "module_input_name", "module_output_name"))
    dotted = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    short = dotted.rpartition(".")[2]
    if not dotted.startswith("torch.nn.") or short not in ACTIVATIONS:
        raise BuildError(f"{name} has activation_function {dotted}; known are {', '.join(ACTIVATIONS)}")
    return Dense(
        settings["in_features"],
        settings["out_features"],
        settings.get("bias", True),
        getattr(nn, short)(),
        settings.get("use_residual", False),
    )


def _loaded(module: nn.Module, files: Files, path: str) -> nn.Module:
    """The module with the weights of its folder, in float32. Raises BuildError that names what is missing."""
    weights = load_weights(files, path)
    try:
        module.load_state_dict(weights)
    except Exception as error:  # a file may hold anything
        reason = " ".join(str(error).split())
        raise BuildError(f"the weights of {path} cannot be loaded: {reason}") from None
    return module.float()


def load_weights(files: Files, path: str) -> Dict[str, torch.Tensor]:
    """The tensors of a folder of the model. Raises BuildError for one that has none."""
    where = path or "the model's folder"
    found = files(join(path, "model.safetensors"))
    try:
        if found is not None:
            from safetensors.torch import load_file

            return load_file(str(found))
        found = files(join(path, "pytorch_model.bin"))
        if found is not None:
            loaded: Dict[str, torch.Tensor] = torch.load(found, map_location="cpu", weights_only=True)
            return loaded
    except Exception as error:  # a file may hold anything
        reason = " ".join(str(error).split())
        raise BuildError(f"the weights of {where} cannot be loaded: {reason}") from None
    raise BuildError(f"{where} has no weights: neither model.safetensors nor pytorch_model.bin")


def read_settings(files: Files, usual: str = "SentenceTransformer") -> Dict[str, Any]:
    """Prompts, similarity and dimensions of config_sentence_transformers.json."""
    settings = read_json(files, SETTINGS) or {}
    kind = settings.get("model_type", usual)
    if kind != usual:
        raise BuildError(f"{SETTINGS} says that this is a {kind}, not a {usual}: choose another task")
    prompts, dimensions = settings.get("prompts") or {}, settings.get("truncate_dim")
    if not isinstance(prompts, dict):
        raise BuildError(f"{SETTINGS} has prompts {prompts!r}, which are not texts by their names")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise BuildError(f"{SETTINGS} has truncate_dim {dimensions!r}, which is no number of dimensions")
    return {
        "prompts": {name: text for name, text in prompts.items() if isinstance(text, str)},
        "default_prompt": settings.get("default_prompt_name"),
        "similarity": settings.get("similarity_fn_name") or "cosine",
        "dimensions": dimensions,
    }


def only_known(settings: Dict[str, Any], name: str, keys: Sequence[str]) -> Dict[str, Any]:
    for key in settings:
        if key not in keys:
            raise BuildError(f"{name} has {key}, which is not known here")
    return settings


def read_json(files: Files, name: str, kind: type = dict) -> Any:
    """A JSON file of the model, or None if it has none. Raises BuildError if it is no such thing."""
    path = files(name)
    if path is None:
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{name} cannot be read: {first_line(error)}") from None
    if not isinstance(value, kind):
        raise BuildError(f"{name} holds no {'object' if kind is dict else 'list of modules'}")
    return value


def join(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}" if path else name
