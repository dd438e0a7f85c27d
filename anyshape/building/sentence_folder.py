"""Reads what sentence-transformers keeps beside a model: modules.json and the files that it names.

Both layouts are read, that of version 5 and later (`pooling_mode: mean`) and the older one of flags
(`pooling_mode_mean_tokens: true`). What is not known is refused by its name: served all the same, it would
give other vectors than sentence-transformers does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from anyshape.building.errors import BuildError, first_line
from anyshape.building.pooling import MODES, Dense, LayerNorm, Normalize

Files = Callable[[str], Optional[Path]]  # a file of the model by its name, or None where it has none

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
POOLING_NAMES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}
ACTIVATIONS = (
    *("Identity", "Tanh", "ReLU", "ReLU6", "LeakyReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish"),
    *("Sigmoid", "LogSigmoid", "Softplus", "Softsign", "Tanhshrink", "Hardtanh", "Hardsigmoid", "Hardswish"),
)
# Arguments of the transformer and its tokenizer that change no vector, or that the build decides itself.
HARMLESS = (
    *("attn_implementation", "torch_dtype", "dtype", "device_map", "low_cpu_mem_usage", "use_cache"),
    *("use_safetensors", "add_pooling_layer", "trust_remote_code", "padding_side", "use_fast"),
    "model_max_length",  # read on its own
)


@dataclass(frozen=True)
class Sentence:
    """How a text becomes a vector: what the model's files say, and the recipe over them.

    pooling: modes, whose vectors are joined. include_prompt: whether a prompt's tokens are pooled too.
    after: what follows the pooling. dimensions: how many numbers of a vector are kept.
    transformer: the folder of the transformer inside the model's own. prompts: by name, put before a text;
    default_prompt: the name of the one for requests that choose none. max_length: in tokens. lower_case:
    whether texts are lowered before the tokenizer's own rules. described: the model has a modules.json.
    """

    pooling: Tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    after: Sequence[nn.Module] = field(default_factory=lambda: (Normalize(),))
    dimensions: Optional[int] = None
    transformer: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: Optional[str] = None
    similarity: str = "cosine"
    max_length: Optional[int] = None
    lower_case: bool = False
    described: bool = False


@dataclass(frozen=True)
class Sparse(Sentence):
    """How a text becomes a sparse vector over the vocabulary.

    strategy: max or sum over the tokens. logs: how often log(1 + x) is taken. most: how many numbers stay.
    """

    strategy: str = "max"
    logs: int = 1
    most: Optional[int] = None


def read_sparse(files: Files) -> Sparse:
    """What the files of a SPLADE model say; one that is a masked language model alone has none.

    Raises BuildError, which names the file and what in it is not known.
    """
    kinds, paths = _modules(files)
    if kinds is None:
        return Sparse()
    if kinds[:1] not in (["Transformer"], ["MLMTransformer"]) or kinds[1:] != ["SpladePooling"]:
        raise BuildError(f"{MODULES} has {' and '.join(kinds)}: it must be Transformer and SpladePooling")
    usual = "fill-mask" if kinds[0] == "MLMTransformer" else "feature-extraction"
    max_length, lower_case = _transformer(files, paths[0], usual, "fill-mask", "logits")
    name = _join(paths[1], "config.json")
    keys = ("pooling_strategy", "activation_function", "embedding_dimension", "word_embedding_dimension")
    pooling = _known(_json(files, name) or {}, name, keys)
    strategy, activation = pooling.get("pooling_strategy", "max"), pooling.get("activation_function", "relu")
    logs = {"relu": 1, "log1p_relu": 2}
    if strategy not in ("max", "sum") or activation not in logs:
        raise BuildError(f"{name} has {strategy!r} of {activation!r}, which is not known here")
    settings = _settings(files, "SparseEncoder")
    return Sparse(
        transformer=paths[0],
        max_length=max_length,
        lower_case=lower_case,
        described=True,
        strategy=strategy,
        logs=logs[activation],
        most=(_json(files, SETTINGS) or {}).get("max_active_dims"),
        **{**settings, "dimensions": None},
    )


def read_sentence(files: Files) -> Sentence:
    """What the model's files say; mean pooling and vectors of length one if it has no modules.json.

    Raises BuildError, which names the file and what in it is not known.
    """
    kinds, paths = _modules(files)
    if kinds is None:
        return Sentence()
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise BuildError(
            f"{MODULES} begins with {' and '.join(kinds[:2])}: it must be Transformer and Pooling"
        )
    max_length, lower_case = _transformer(files, paths[0])
    modes, include_prompt = _pooling(files, paths[1])
    after = [_after(kind, files, path) for kind, path in zip(kinds[2:], paths[2:])]
    return Sentence(
        pooling=modes,
        include_prompt=include_prompt,
        after=tuple(module for module in after if module is not None),
        transformer=paths[0],
        max_length=max_length,
        lower_case=lower_case,
        described=True,
        **_settings(files),
    )


def with_options(sentence: Sentence, options: Mapping[str, Any]) -> Sentence:
    """The recipe's `task_options` over what the files say. Raises BuildError, which names the key."""
    given = {key: value for key, value in options.items() if value is not None}
    changes: Dict[str, Any] = {}
    if "pooling" in given:
        modes = given["pooling"] if isinstance(given["pooling"], list) else [given["pooling"]]
        if not modes or not all(isinstance(mode, str) and mode in MODES for mode in modes):
            _wrong("pooling", f"one or a list of {', '.join(sorted(MODES))}", given["pooling"])
        changes["pooling"] = tuple(modes)
    for key in ("normalize", "include_prompt"):
        if not isinstance(given.get(key, True), bool):
            _wrong(key, "true or false", given[key])
    if "include_prompt" in given:
        changes["include_prompt"] = given["include_prompt"]
    if "normalize" in given:
        plain = tuple(module for module in sentence.after if not isinstance(module, Normalize))
        if not given["normalize"]:
            changes["after"] = plain
        elif len(plain) == len(sentence.after):
            changes["after"] = (*plain, Normalize())
    for key in ("max_length", "dimensions"):
        if key in given:
            value = given[key]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                _wrong(key, "a positive whole number", value)
            changes[key] = value
    prompts = given.get("prompts", {})
    if not isinstance(prompts, Mapping) or not all(isinstance(p, str) for kv in prompts.items() for p in kv):
        _wrong("prompts", "texts by their names", prompts)
    changes["prompts"] = {**sentence.prompts, **prompts}
    changes["default_prompt"] = name = given.get("default_prompt", sentence.default_prompt)
    if name is not None and name not in changes["prompts"]:
        known = ", ".join(sorted(changes["prompts"])) or "none"
        raise BuildError(
            f"handler.task_options.default_prompt: there is no prompt {name!r}; there are {known}"
        )
    return replace(sentence, **changes)


def _wrong(key: str, wanted: str, value: Any) -> None:
    raise BuildError(f"handler.task_options.{key} must be {wanted}, not {value!r}")


def _modules(files: Files) -> Tuple[Optional[List[str]], List[str]]:
    """The kinds of a model's modules and their folders; no kinds where it has no modules.json."""
    modules = _json(files, MODULES)
    if modules is None:
        return None, []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise BuildError(f"{MODULES} is not a list of modules")
    return [_kind(module) for module in modules], [_path(module) for module in modules]


def _kind(module: Mapping[str, Any]) -> str:
    """The class of a module, whatever folder of sentence-transformers it lived in when it was saved."""
    kind = module.get("type")
    if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
        raise BuildError(
            f"{MODULES} has the module {kind!r}, which is code of the model's own and is not run"
        )
    return kind.rpartition(".")[2]


def _path(module: Mapping[str, Any]) -> str:
    path = module.get("path", "")
    if not isinstance(path, str) or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise BuildError(f"{MODULES} has the path {path!r}, which is not inside the model's folder")
    return path


def _transformer(
    files: Files,
    path: str,
    usual: str = "feature-extraction",
    task: str = "feature-extraction",
    output: str = "last_hidden_state",
) -> Tuple[Optional[int], bool]:
    """The most tokens and whether texts are lowered. Raises BuildError for what is not plain text.

    `task` is what the transformer must do (`usual` where it says nothing), `output` what it must return.
    """
    for name in TRANSFORMER_FILES:
        settings = _json(files, _join(path, name))
        if settings:
            break
    else:
        return None, False
    modalities = settings.get("modality_config") or {"text": {"method_output_name": output}}
    text = modalities.get("text") or {}
    refused = {
        "transformer_task": settings.get("transformer_task", usual) != task,
        "module_output_name": settings.get("module_output_name", "token_embeddings") != "token_embeddings",
        "modality_config": set(modalities) != {"text"}
        or text.get("method", "forward") != "forward"
        or text.get("method_output_name") not in (output, [output]),
        "processing_kwargs": bool(settings.get("processing_kwargs")),
        "query_expansion": bool(settings.get("query_expansion")),
        "tokenizer_name_or_path": bool(settings.get("tokenizer_name_or_path")),
    }
    for key, wrong in refused.items():
        if wrong:
            raise BuildError(f"{_join(path, name)} has {key} {settings.get(key)!r}, which is not known here")
    for key, value in settings.items():
        if key.endswith(("_args", "_kwargs")) and isinstance(value, dict):
            for option in value:
                if option not in HARMLESS:
                    raise BuildError(f"{_join(path, name)} has {key}.{option}, which is not known here")
    tokenizer = {**(settings.get("tokenizer_args") or {}), **(settings.get("processor_kwargs") or {})}
    limit = tokenizer.get("model_max_length", settings.get("max_seq_length"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise BuildError(f"{_join(path, name)} has max_seq_length {limit!r}, which is no number of tokens")
    return limit, bool(settings.get("do_lower_case"))


def _pooling(files: Files, path: str) -> Tuple[Tuple[str, ...], bool]:
    name = _join(path, "config.json")
    settings = _known(
        _json(files, name) or {},
        name,
        ("embedding_dimension", "word_embedding_dimension", "include_prompt", "pooling_mode", *POOLING_FLAGS),
    )
    flagged = [mode for flag, mode in POOLING_FLAGS.items() if settings.get(flag)]
    modes: List[str] = flagged or ["mean"]
    if "pooling_mode" in settings:
        named = settings["pooling_mode"]
        named = named if isinstance(named, list) else [named]
        for mode in named:
            if mode not in POOLING_NAMES:
                raise BuildError(f"{name} has pooling_mode {mode!r}; known are {', '.join(POOLING_NAMES)}")
        modes = [POOLING_NAMES[mode] for mode in named]
    return tuple(modes), bool(settings.get("include_prompt", True))


def _after(kind: str, files: Files, path: str) -> Optional[nn.Module]:
    """The module of this kind with its weights, or None for one that does nothing when it serves."""
    name = _join(path, "config.json")
    settings = _json(files, name) or {}
    if kind == "Dropout":
        return None
    if kind in ("Normalize", "Dense"):
        for key in ("module_input_name", "module_output_name"):
            if settings.get(key) not in (None, "sentence_embedding"):
                raise BuildError(f"{name} has {key} {settings[key]!r}: only sentence_embedding is known")
    try:
        if kind == "Normalize":
            _known(settings, name, ("module_input_name", "module_output_name"))
            return Normalize()
        if kind == "LayerNorm":
            _known(settings, name, ("dimension",))
            return _weights(LayerNorm(settings["dimension"]), files, path)
        if kind == "Dense":
            return _weights(_dense(settings, name), files, path)
    except (KeyError, TypeError) as error:
        raise BuildError(f"{name} cannot be read: {first_line(error)}") from None
    known = "Dense, LayerNorm, Normalize and Dropout"
    raise BuildError(f"{MODULES} has the module {kind}; after Transformer and Pooling, known are {known}")


def _dense(settings: Dict[str, Any], name: str) -> Dense:
    keys = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    _known(settings, name, (*keys, "module_input_name", "module_output_name"))
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


def _weights(module: nn.Module, files: Files, path: str) -> nn.Module:
    """The module with the weights of its folder, in float32. Raises BuildError that names what is missing."""
    found = files(_join(path, "model.safetensors"))
    try:
        if found is not None:
            from safetensors.torch import load_file

            weights = load_file(str(found))
        else:
            found = files(_join(path, "pytorch_model.bin"))
            if found is None:
                raise BuildError(f"{path} has no weights: neither model.safetensors nor pytorch_model.bin")
            weights = torch.load(found, map_location="cpu", weights_only=True)
        module.load_state_dict(weights)
    except BuildError:
        raise
    except Exception as error:  # a file may hold anything
        reason = " ".join(str(error).split())
        raise BuildError(f"the weights of {path} cannot be loaded: {reason}") from None
    return module.float()


def _settings(files: Files, usual: str = "SentenceTransformer") -> Dict[str, Any]:
    """Prompts, similarity and dimensions of config_sentence_transformers.json."""
    settings = _json(files, SETTINGS) or {}
    kind = settings.get("model_type", usual)
    if kind != usual:
        raise BuildError(f"{SETTINGS} says that this is a {kind}, not a {usual}: choose another task")
    prompts = settings.get("prompts") or {}
    return {
        "prompts": {name: text for name, text in prompts.items() if isinstance(text, str)},
        "default_prompt": settings.get("default_prompt_name"),
        "similarity": settings.get("similarity_fn_name") or "cosine",
        "dimensions": settings.get("truncate_dim"),
    }


def _known(settings: Dict[str, Any], name: str, keys: Sequence[str]) -> Dict[str, Any]:
    for key in settings:
        if key not in keys:
            raise BuildError(f"{name} has {key}, which is not known here")
    return settings


def _json(files: Files, name: str) -> Any:
    """A JSON file of the model, or None if it has none. Raises BuildError if it is not JSON."""
    path = files(name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{name} cannot be read: {first_line(error)}") from None


def _join(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}" if path else name
