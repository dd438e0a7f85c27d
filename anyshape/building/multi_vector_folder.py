"""Reads what is kept beside a model of late interaction, which makes a vector of each token (ColBERT).

Three layouts are read: that of sentence-transformers' MultiVectorEncoder, PyLate's (markers, lengths and the
list of skipped words in config_sentence_transformers.json), and that of the Stanford checkpoints (weights of
the projection beside those of the transformer, settings in artifact.metadata).
"""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from torch import nn

from anyshape.building.errors import BuildError, first_line
from anyshape.building.pooling import Dense, Normalize
from anyshape.building.sentence_files import (
    MODULES,
    SETTINGS,
    TOKENS,
    Files,
    join,
    load_weights,
    only_known,
    read_json,
    read_module,
    read_modules,
    read_transformer,
    transformer_settings,
)
from anyshape.building.sentence_folder import Sentence, with_options

STANFORD, METADATA = "HF_ColBERT", "artifact.metadata"
PYLATE = (
    *("query_prefix", "document_prefix", "query_length", "document_length", "query_expansion"),
    *("do_query_expansion", "attend_to_expansion_tokens", "attend_to_mask_tokens", "skiplist_words"),
)
PUNCTUATION = tuple(string.punctuation)
LENGTH = 32  # tokens of a query where nothing says it


@dataclass(frozen=True)
class Expansion:
    """How a query is filled up to `length` tokens, which all get a vector.

    fixed: a longer query is too long; otherwise it stays as it is. attends: whether the model sees what fills
    it up. token: what fills it up; None for the tokenizer's mask, or its end token where it has none.
    """

    length: int
    fixed: bool = True
    attends: bool = False
    token: Optional[str] = None


@dataclass(frozen=True)
class MultiVector(Sentence):
    """How the tokens of a text become vectors; `prompts` called query and document stand before such texts.

    query_length, document_length: the most tokens, where it is not the model's. expansion: None for queries
    that are as long as they are. skipped: words whose tokens get no vector, in texts of the sides `skips`.
    markers: beginnings of texts that the tokenizer has to leave whole.
    """

    pooling: Tuple[str, ...] = ()
    query_length: Optional[int] = None
    document_length: Optional[int] = None
    expansion: Optional[Expansion] = None
    skipped: Sequence[str] = ()
    skips: Sequence[str] = ("document",)
    markers: Sequence[str] = ()


def read_multi_vector(files: Files) -> MultiVector:
    """What the files of such a model say.

    Raises BuildError, which names the file and what in it is not known.
    """
    kinds, paths = read_modules(files)
    if kinds is None:
        return _stanford(files)
    if kinds[0] != "Transformer":
        raise BuildError(f"{MODULES} begins with {kinds[0]}: it must be Transformer")
    settings = read_json(files, SETTINGS) or {}
    kind, marked = settings.get("model_type"), any(key in settings for key in PYLATE)
    pylate = kind == "ColBERT" or (kind in (None, "SentenceTransformer") and marked)
    if not pylate and kind != "MultiVectorEncoder":
        raise BuildError(f"{SETTINGS} does not say that this is a MultiVectorEncoder or a ColBERT model")
    if settings.get("truncate_dim") is not None:
        raise BuildError(f"{SETTINGS} has truncate_dim, which is not known for vectors of tokens")
    max_length, lower_case = read_transformer(files, paths[0], expands=True)
    name, own = transformer_settings(files, paths[0])
    lengths = {**_pylate_lengths(settings, marked), **own}
    described = MultiVector(
        after=_after(files, kinds[1:], paths[1:], pylate),
        transformer=paths[0],
        prompts=_prompts(settings),
        max_length=max_length,
        lower_case=lower_case,
        described=True,
        query_length=_length(lengths, "query_length", name or SETTINGS),
        document_length=_length(lengths, "document_length", name or SETTINGS),
        expansion=_expansion(lengths.get("query_expansion"), name or SETTINGS),
        markers=[settings[key] for key in PYLATE[:2] if settings.get(key)],
    )
    if pylate:
        skipped = settings.get("skiplist_words")
        return replace(described, skipped=PUNCTUATION if skipped is None else skipped)
    return _with_mask(described, files, kinds, paths)


def with_lengths(described: MultiVector, options: Mapping[str, Any]) -> MultiVector:
    """The recipe's `task_options` over what the files say. Raises BuildError, which names the key."""
    described = with_options(described, options)  # type: ignore[assignment]
    query = _length(options, "query_length", "handler.task_options")
    document = _length(options, "document_length", "handler.task_options")
    if document is not None:
        described = replace(described, document_length=document)
    if query is not None and described.expansion is not None:
        expansion = replace(described.expansion, length=query)
        described = replace(described, expansion=expansion, query_length=None)
    elif query is not None:
        described = replace(described, query_length=query)
    return described


def _after(files: Files, kinds: Sequence[str], paths: Sequence[str], pylate: bool) -> Tuple[nn.Module, ...]:
    """What follows the transformer, but for the mask; PyLate's models end in a normalisation of their own."""
    known = {"Dense": (None, TOKENS)} if pylate else {"Dense": (None, TOKENS), "Normalize": (TOKENS,)}
    after: List[nn.Module] = []
    for kind, path in zip(kinds, paths):
        if kind == "MultiVectorMask" and not pylate:
            continue
        if kind not in known:
            raise BuildError(
                f"{MODULES} has the module {kind}; after Transformer, known here are {', '.join(known)}"
                + ("" if pylate else " and MultiVectorMask")
            )
        after.append(read_module(kind, files, path, known[kind]))  # type: ignore[arg-type]
    if pylate and not after:
        raise BuildError(f"{MODULES} has no Dense: the projection of the tokens is missing")
    return (*after, Normalize()) if pylate else tuple(after)


def _with_mask(
    described: MultiVector, files: Files, kinds: Sequence[str], paths: Sequence[str]
) -> MultiVector:
    """The same with what the module says that chooses the tokens which get a vector."""
    found = [path for kind, path in zip(kinds, paths) if kind == "MultiVectorMask"]
    if not found:
        if described.expansion is not None:
            raise BuildError(f"{MODULES} has no MultiVectorMask, and the model expands its queries")
        return described
    if len(found) > 1:
        raise BuildError(f"{MODULES} has {len(found)} modules MultiVectorMask: one is known here")
    name = join(found[0], "config.json")
    known = ("skiplist_words", "skiplist_tasks", "keep_only_token_ids")
    settings = only_known(read_json(files, name) or {}, name, known)
    if settings.get("keep_only_token_ids"):
        raise BuildError(f"{name} has keep_only_token_ids, which is not known here")
    skips = settings.get("skiplist_tasks") or ["document"]
    skips = [skips] if isinstance(skips, str) else skips
    return replace(described, skipped=settings.get("skiplist_words") or (), skips=skips)


def _prompts(settings: Mapping[str, Any]) -> Dict[str, str]:
    """The texts before each side; PyLate's marker stands before the prompt."""
    prompts = {n: t for n, t in (settings.get("prompts") or {}).items() if isinstance(t, str)}
    for key, side in (("query_prefix", "query"), ("document_prefix", "document")):
        if key in settings:
            marker, prompt = settings[key] or "", prompts.get(side, "")
            prompts[side] = marker + (prompt[len(marker) :] if prompt.startswith(marker) else prompt)
    return prompts


def _pylate_lengths(settings: Mapping[str, Any], marked: bool) -> Dict[str, Any]:
    """PyLate's lengths, in the words of sentence-transformers."""
    lengths = {key: settings[key] for key in ("query_length", "document_length") if settings.get(key)}
    if "query_expansion" in settings:
        lengths["query_expansion"] = settings["query_expansion"]
    elif marked and settings.get("do_query_expansion") is not False:
        attends = settings.get("attend_to_expansion_tokens", settings.get("attend_to_mask_tokens"))
        length = lengths.pop("query_length", LENGTH)
        lengths["query_expansion"] = {"strategy": "fixed", "attend": bool(attends), "length": length}
    return lengths


def _length(settings: Mapping[str, Any], key: str, name: str) -> Optional[int]:
    value = settings.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise BuildError(f"{name}.{key} must be a positive whole number, not {value!r}")
    return value


def _expansion(settings: Any, name: str) -> Optional[Expansion]:
    if settings is None:
        return None
    if not isinstance(settings, dict) or settings.get("strategy") not in ("fixed", "min"):
        raise BuildError(f"{name} has query_expansion {settings!r}, which is not known here")
    only_known(settings, f"{name}.query_expansion", ("strategy", "attend", "token", "length"))
    length = _length(settings, "length", f"{name}.query_expansion")
    if length is None:
        raise BuildError(f"{name}.query_expansion has no length")
    fixed, attends = settings["strategy"] == "fixed", bool(settings.get("attend", False))
    return Expansion(length, fixed, attends, settings.get("token"))


def _stanford(files: Files) -> MultiVector:
    """A checkpoint of Stanford's own code. Raises BuildError for a model that is none."""
    architectures = (read_json(files, "config.json") or {}).get("architectures") or []
    if STANFORD not in architectures:
        raise BuildError(
            f"it has neither {MODULES} nor the architecture {STANFORD} in config.json: nothing says how its "
            "tokens become vectors"
        )
    settings = read_json(files, METADATA) or {}
    markers = [settings.get("query_token_id") or "[unused0]", settings.get("doc_token_id") or "[unused1]"]
    weights = load_weights(files, "")
    if "linear.weight" not in weights:
        raise BuildError("its weights have no linear.weight: the projection of the tokens is missing")
    outputs, inputs = weights["linear.weight"].shape
    projection = Dense(inputs, outputs, False, nn.Identity())
    try:
        projection.linear.load_state_dict({"weight": weights["linear.weight"]})
    except (RuntimeError, TypeError) as error:
        raise BuildError(f"linear.weight cannot be loaded: {first_line(error)}") from None
    attends = bool(settings.get("attend_to_mask_tokens"))
    length = _length(settings, "query_maxlen", METADATA) or LENGTH
    return MultiVector(
        after=(projection.float(), Normalize()),
        prompts={"query": f"{markers[0]} ", "document": f"{markers[1]} "},
        described=True,
        document_length=_length(settings, "doc_maxlen", METADATA),
        expansion=Expansion(length, attends=attends),
        skipped=PUNCTUATION if settings.get("mask_punctuation", True) else (),
        markers=[f"{marker} " for marker in markers],
    )
