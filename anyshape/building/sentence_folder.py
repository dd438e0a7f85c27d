"""Reads what sentence-transformers keeps beside a model: modules.json and the files that it names.

Both layouts are read, that of version 5 and later (`pooling_mode: mean`) and the older one of flags
(`pooling_mode_mean_tokens: true`). What is not known is refused by its name: served all the same, it would
give other vectors than sentence-transformers does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from torch import nn

from anyshape.building.errors import BuildError
from anyshape.building.pooling import MODES, Normalize
from anyshape.building.sentence_files import (
    MODULES,
    SENTENCE,
    SETTINGS,
    Files,
    join,
    only_known,
    read_json,
    read_module,
    read_modules,
    read_settings,
    read_transformer,
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
    kinds, paths = read_modules(files)
    if kinds is None:
        return Sparse()
    if kinds[:1] not in (["Transformer"], ["MLMTransformer"]) or kinds[1:] != ["SpladePooling"]:
        raise BuildError(f"{MODULES} has {' and '.join(kinds)}: it must be Transformer and SpladePooling")
    usual = "fill-mask" if kinds[0] == "MLMTransformer" else "feature-extraction"
    max_length, lower_case = read_transformer(files, paths[0], usual, "fill-mask", "logits")
    name = join(paths[1], "config.json")
    keys = ("pooling_strategy", "activation_function", "embedding_dimension", "word_embedding_dimension")
    pooling = only_known(read_json(files, name) or {}, name, keys)
    strategy, activation = pooling.get("pooling_strategy", "max"), pooling.get("activation_function", "relu")
    logs = {"relu": 1, "log1p_relu": 2}
    if strategy not in ("max", "sum") or activation not in logs:
        raise BuildError(f"{name} has {strategy!r} of {activation!r}, which is not known here")
    settings = read_settings(files, "SparseEncoder")
    return Sparse(
        transformer=paths[0],
        max_length=max_length,
        lower_case=lower_case,
        described=True,
        strategy=strategy,
        logs=logs[activation],
        most=(read_json(files, SETTINGS) or {}).get("max_active_dims"),
        **{**settings, "dimensions": None},
    )


def read_sentence(files: Files) -> Sentence:
    """What the model's files say; mean pooling and vectors of length one if it has no modules.json.

    Raises BuildError, which names the file and what in it is not known.
    """
    kinds, paths = read_modules(files)
    if kinds is None:
        return Sentence()
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise BuildError(
            f"{MODULES} begins with {' and '.join(kinds[:2])}: it must be Transformer and Pooling"
        )
    max_length, lower_case = read_transformer(files, paths[0])
    modes, include_prompt = _pooling(files, paths[1])
    after = [read_module(kind, files, path, (None, SENTENCE)) for kind, path in zip(kinds[2:], paths[2:])]
    return Sentence(
        pooling=modes,
        include_prompt=include_prompt,
        after=tuple(module for module in after if module is not None),
        transformer=paths[0],
        max_length=max_length,
        lower_case=lower_case,
        described=True,
        **read_settings(files),
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


def _pooling(files: Files, path: str) -> Tuple[Tuple[str, ...], bool]:
    name = join(path, "config.json")
    settings = only_known(
        read_json(files, name) or {},
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
