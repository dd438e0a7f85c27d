"""Writes what a task on text needs when it serves: tokenizer.json and text.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Sequence

from anyshape.buckets import Bucket
from anyshape.building.classifiers import text_config
from anyshape.building.pooling import Normalize
from anyshape.building.sentence_folder import Sentence
from anyshape.building.token_inputs import inputs_of, token_inputs
from anyshape.errors import ConfigError
from anyshape.recipe import Section
from anyshape.tasks.text import SETTINGS, TOKENIZER

NO_LIMIT = 10**9  # what transformers writes for tokenizers without a limit is larger


def save_text(
    section: Section,
    buckets: List[Bucket],
    tokenizer: Any,
    model: torch.nn.Module,
    folder: Path,
    sentence: Optional[Sentence] = None,
    more: Optional[Dict[str, Any]] = None,
    padding: Optional[int] = None,
) -> None:
    """Write tokenizer.json and text.json to `folder`, for a model and transformers' tokenizer of it.

    `more` is what the task itself adds to text.json; `padding` a token that is no text's, to pad with.

    Raises ConfigError for a tokenizer, a model or buckets that do not fit each other.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"the tokenizer of {section.tokenizer or section.model} has no tokenizer.json: "
            "convert it to a fast tokenizer first"
        )
    settings = getattr(model, "config", None)
    rows = embeddings(model)
    _check_positions(buckets, model)
    more_inputs = token_inputs(section, tokenizer, model)
    saved = {
        "inputs": [*inputs_of(section, tokenizer, model), *more_inputs],
        "token_inputs": more_inputs,
        "pad_token_id": _pad_token_id(tokenizer, text_config(model), rows) if padding is None else padding,
        "pad_token_type_id": getattr(tokenizer, "pad_token_type_id", 0),
        "embeddings": rows
        if padding is not None or _has_ids_beyond(section, tokenizer.backend_tokenizer, rows)
        else None,
        "truncation_side": tokenizer.truncation_side,
        "labels": labels_of(section, settings),
        "problem_type": getattr(settings, "problem_type", None),
        **(more or {}),
    }
    fast = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if sentence is not None:
        saved["sentence"] = _sentence(sentence, tokenizer)
        # A pooling asks for the mask even if the model does not.
        if sentence.pooling and "attention_mask" not in saved["inputs"]:
            saved["inputs"].append("attention_mask")
        if not sentence.include_prompt:
            saved["inputs"].append("pooling_mask")
        if sentence.lower_case:
            rules = [] if fast.normalizer is None else [fast.normalizer]
            fast.normalizer = Sequence([Lowercase(), *rules])
    fast.save(str(folder / TOKENIZER))
    (folder / SETTINGS).write_text(json.dumps(saved, indent=1), encoding="utf-8")


def position_limit(model: torch.nn.Module) -> Optional[int]:
    """The most tokens that the model has positions for, or None if it has no limit or says none."""
    for module in model.modules():
        # RoBERTa and its kin count from padding_idx + 1, and the table is that much longer.
        table, padding = getattr(module, "position_embeddings", None), getattr(module, "padding_idx", None)
        weight = getattr(table, "weight", None)
        if isinstance(padding, int) and isinstance(weight, torch.Tensor) and weight.dim() == 2:
            return weight.shape[0] - padding - 1
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None  # XLNet says -1


def _check_positions(buckets: List[Bucket], model: torch.nn.Module) -> None:
    limit, largest = position_limit(model), max(bucket[0] for bucket in buckets)
    if limit is not None and largest > limit:
        raise ConfigError(f"handler.buckets: {largest} is more than the {limit} positions of the model")


def embeddings(model: torch.nn.Module) -> Optional[int]:
    """How many token ids the model has embeddings for, or None if it does not say."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    weight = getattr(table, "weight", None)
    return weight.shape[0] if isinstance(weight, torch.Tensor) and weight.dim() == 2 else None


def _has_ids_beyond(section: Section, fast: Tokenizer, rows: Optional[int]) -> bool:
    """Whether some tokens have no embedding; texts with such a token, added and never trained, are refused.

    Raises ConfigError if tokens of the tokenizer's own have none: it belongs to another model.
    """
    if rows is None:
        return False
    own = sorted((i, token) for token, i in fast.get_vocab(with_added_tokens=False).items() if i >= rows)
    if own:
        raise ConfigError(
            f"the tokenizer of {section.tokenizer or section.model} has {len(own)} tokens beyond the {rows} "
            f"that the model has embeddings for, from {own[0][1]!r} (id {own[0][0]}) on: name the tokenizer "
            "that the model was trained with in handler.tokenizer"
        )
    return max(fast.get_vocab().values(), default=0) >= rows


def _pad_token_id(tokenizer: Any, settings: Any, rows: Optional[int]) -> int:
    """What the model itself takes for padding, else what the tokenizer does: a model looks for its own.

    Without either any token does: the model cannot know one, and the build compares.
    """
    for pad in (getattr(settings, "pad_token_id", None), tokenizer.pad_token_id):
        if isinstance(pad, int) and pad >= 0 and (rows is None or pad < rows):
            return pad
    return 0


def labels_of(section: Section, settings: Any) -> List[str]:
    """The names of the classes: the recipe's, or else those of the model's config."""
    by_id = getattr(settings, "id2label", None) or {}
    labels = [str(by_id[i]) for i in sorted(by_id)]
    if section.labels is None:
        return labels
    if labels and len(labels) != len(section.labels):
        raise ConfigError(
            f"handler.labels has {len(section.labels)} names, but the model has {len(labels)} classes"
        )
    return section.labels


def _sentence(sentence: Sentence, tokenizer: Any) -> Dict[str, Any]:
    """What serving needs to know of it; the pooling itself is inside the compiled model."""
    limit = sentence.max_length
    if limit is None and sentence.described and tokenizer.model_max_length < NO_LIMIT:
        limit = tokenizer.model_max_length  # where newer versions of sentence-transformers keep it
    return {
        "max_length": limit,
        "prompts": dict(sentence.prompts),
        "default_prompt": sentence.default_prompt,
        "include_prompt": sentence.include_prompt,
        "special_ids": sorted(tokenizer.all_special_ids),
        "similarity": sentence.similarity,
        "pooling": ", ".join(sentence.pooling),
        "normalizes": any(isinstance(module, Normalize) for module in sentence.after),
        # Whether the mean of several vectors is to be scaled to length one, as each of them was.
        "normalized": sentence.dimensions is None
        and bool(sentence.after)
        and isinstance(sentence.after[-1], Normalize),
    }
