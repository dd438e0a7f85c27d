"""Models for rows that hold several texts: adapted, or refused by name where texts would see each other."""

from __future__ import annotations

import inspect
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from anyshape.building.deviation import deviation
from anyshape.building.errors import BuildError, first_line
from anyshape.building.pooling import SentenceModel, first_tensor
from anyshape.building.segments import apart, last_word, members, pool, words
from anyshape.errors import ConfigError
from anyshape.tasks.text import POOLING_MASK

SEGMENTS, POSITIONS = "segment_ids", "position_ids"
Named = Mapping[str, torch.Tensor]
LAST_WORD = "last token that is no padding"
PICKS = ("cls", "last_token", LAST_WORD, "mean")  # what a classifier's head may look at
TRIED = (9, 5)  # tokens of the texts by which it is found out how a model takes rows
WRONG = 0.1  # relative: no rounding of any dtype deviates by so much


class InRows(nn.Module):
    """A transformer run on rows of several texts, each as if it were alone; gives its first output.

    Positions start anew in each text, at `first`; None for a model that is not told positions. padding: the
    token of padding, if the model does not count it where it stands in a text, as RoBERTa and its kin.
    """

    def __init__(self, model: nn.Module, first: Optional[int], padding: Optional[int] = None) -> None:
        super().__init__()
        self.model = model
        self.first = first
        self.padding = padding
        self.takes_mask = "attention_mask" in _parameters(model)

    def forward(self, named: Named) -> torch.Tensor:
        """named: by name the model's own inputs, `segment_ids` and `position_ids`, all ``[rows, length]``."""
        return self.run(named)[0]

    def run(self, named: Named) -> Tuple[torch.Tensor, List[str]]:
        """The output, and for which kinds of attention transformers' shared code made masks."""
        given = {name: named[name] for name in ("input_ids", "token_type_ids") if name in named}
        if self.takes_mask:  # nothing is left out: the padding is a segment of its own
            given["attention_mask"] = torch.ones_like(named["input_ids"])
        if self.first is not None and self.padding is not None:
            given[POSITIONS] = words(named["input_ids"] != self.padding, named[SEGMENTS]) + self.padding
        elif self.first is not None:
            given[POSITIONS] = named[POSITIONS] + self.first
        with apart(self.model, named[SEGMENTS]) as made:
            return first_tensor(self.model(**given)), made


def in_rows(model: nn.Module, names: Sequence[str], vocabulary: int) -> InRows:
    """`model`, to be run on rows. names: its own inputs; vocabulary: token ids are below.

    Raises ConfigError, which names the model, if it cannot be.
    """
    kind = type(model).__name__
    _one_stack(model)
    texts, expected = _alone(model, names, vocabulary)
    found: Dict[float, InRows] = {}
    with torch.no_grad():
        for first, padding in _ways_to_count(model):
            rows = InRows(model, first, padding)
            try:
                output, made = rows.run(side_by_side(texts))
            except BuildError:
                raise
            except Exception as error:  # models refuse in many ways
                raise _refused(kind, f"does not run on them ({first_line(error)})") from error
            if not made:
                why = "makes its attention mask itself, not by transformers' shared code"
                raise _refused(kind, f"{why}, so they would see each other")
            if output.dim() != 3 or output.shape[:2] != (1, sum(TRIED)):
                raise _refused(kind, f"gives no output per token, but {list(output.shape)} for {sum(TRIED)}")
            parts = [output[:, : TRIED[0]], output[:, TRIED[0] :]]
            found.setdefault(_apart(parts, expected), rows)
    if min(found) > WRONG:
        raise _refused(
            kind, f"mixes them or counts their positions in its own way: it deviates by {min(found):g}"
        )
    return found[min(found)]


class TokenRows(nn.Module):
    """Gives an output per token: ``[rows, length, ...]``."""

    def __init__(self, rows: InRows, names: Sequence[str]) -> None:
        super().__init__()
        self.rows = rows
        self.names = tuple(names)

    def forward(self, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        return (self.rows(dict(zip(self.names, tensors))).float(),)


class SentenceRows(nn.Module):
    """Gives a vector per text: ``[rows, most, width]``."""

    def __init__(self, sentence: SentenceModel, rows: InRows, names: Sequence[str], most: int) -> None:
        super().__init__()
        self.rows = rows
        self.names = tuple(names)
        self.most = most
        self.modes = sentence.pooling.modes
        self.after = sentence.after
        self.dimensions = sentence.dimensions

    def forward(self, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        named = dict(zip(self.names, tensors))
        own = members(named[SEGMENTS], self.most)
        if POOLING_MASK in named:
            own = own & (named[POOLING_MASK] > 0).unsqueeze(1)
        vectors = pool(self.modes, self.rows(named).float(), own, named[SEGMENTS])
        vectors = self.after(vectors.flatten(0, 1))
        vectors = vectors.view(-1, self.most, vectors.shape[-1])
        return (vectors if self.dimensions is None else vectors[..., : self.dimensions],)


class ClassifierRows(nn.Module):
    """Gives the classes' scores of each text: ``[rows, most, classes]``.

    The head is the model's own code: it is shown each text as a text of one token, by which it sees what it
    picks out of a whole one (`pick`: the first token, the last, the last that is not `padding`, or the mean).
    """

    def __init__(
        self,
        head: nn.Module,
        rows: InRows,
        names: Sequence[str],
        most: int,
        pick: str,
        padding: Optional[int],
    ) -> None:
        super().__init__()
        self.rows = rows
        self.head = head
        self.names = tuple(names)
        self.most = most
        self.pick = pick
        self.padding = padding
        self.takes_mask = "attention_mask" in _parameters(head)

    def forward(self, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        named = dict(zip(self.names, tensors))
        segments = named[SEGMENTS]
        tokens = self.rows(named)
        own, pick = members(segments, self.most), self.pick
        if pick == LAST_WORD:
            own, pick = last_word(own, named["input_ids"].ne(self.padding or 0)), "cls"
        picked = pool([pick], tokens.float(), own, segments)
        token = picked.to(tokens.dtype).flatten(0, 1).unsqueeze(1)  # [texts, 1, width]
        given = {"inputs_embeds": token}
        if self.takes_mask:
            given["attention_mask"] = torch.ones(token.shape[:2], dtype=torch.int64, device=token.device)
        scores = first_tensor(self.head(**given))
        return (scores.float().view(-1, self.most, scores.shape[-1]),)


class Given(nn.Module):
    """Stands where a classifier has its transformer, and gives as its output what it is given."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.pooler = getattr(transformer, "pooler", None)
        self.activation = getattr(transformer, "pooler_activation", None)  # ALBERT's pooler is a plain layer

    def forward(self, *args: Any, **named: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        tokens = named["inputs_embeds"]
        pooled = None
        if self.pooler is not None:
            pooled = (
                self.pooler(tokens) if self.activation is None else self.activation(self.pooler(tokens[:, 0]))
            )
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=tokens, pooler_output=pooled)


def classifier_rows(
    model: nn.Module, own_names: Sequence[str], names: Sequence[str], most: int, vocabulary: int
) -> ClassifierRows:
    """A model for sequence classification in rows. Changes `model`.

    own_names: its own inputs; names: those of what is returned. Raises ConfigError, which names the model.
    """
    kind = type(model).__name__
    prefix = getattr(model, "base_model_prefix", "")
    transformer = getattr(model, prefix, None) if prefix else None
    if not isinstance(transformer, nn.Module) or "inputs_embeds" not in _parameters(model):
        raise _refused(kind, "does not keep its head apart from its transformer")
    _one_stack(model)
    padding = _padding(model)
    texts, expected = _alone(model, own_names, vocabulary)
    rows = in_rows(transformer, [n for n in own_names if n in _parameters(transformer)], vocabulary)
    setattr(model, prefix, Given(transformer))
    config = _text_config(model)
    if config is not None and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = (
            0  # heads of decoders ask for one, and look for it in token ids alone: none here
        )
    named = side_by_side(texts)
    found: Dict[float, ClassifierRows] = {}
    for pick in PICKS:
        if pick == LAST_WORD and padding is None:
            continue
        tried = ClassifierRows(model, rows, list(named), 2, pick, padding)
        try:
            with torch.no_grad():
                (scores,) = tried(*named.values())
        except Exception as error:  # models refuse in many ways
            raise _refused(kind, f"has a head that does not run by itself ({first_line(error)})") from error
        if scores.shape[2:] != expected[0].shape[1:]:
            raise _refused(kind, "has a head that needs whole texts")
        found.setdefault(_apart([scores[:, i] for i in range(len(expected))], expected), tried)
    if min(found) > WRONG:
        raise _refused(
            kind, "has a head that picks neither the first token nor the last nor the mean of a text"
        )
    return ClassifierRows(model, rows, names, most, found[min(found)].pick, padding)


def _one_stack(model: nn.Module) -> None:
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        why = "has a decoder besides its encoder, whose texts would see each other"
        raise _refused(type(model).__name__, why)


def _alone(
    model: nn.Module, names: Sequence[str], vocabulary: int
) -> Tuple[List[Dict[str, torch.Tensor]], List[torch.Tensor]]:
    """The texts that are tried, and what the model gives for each of them alone."""
    padding = _padding(model)
    texts = [_text(names, length, vocabulary, padding) for length in TRIED]
    try:
        with torch.no_grad():
            return texts, [first_tensor(model(**text)) for text in texts]
    except Exception as error:  # models refuse in many ways
        raise ConfigError(
            f"handler.model: {type(model).__name__} does not run ({first_line(error)})"
        ) from error


def side_by_side(texts: Sequence[Named]) -> Dict[str, torch.Tensor]:
    """Texts ``[1, length]`` as one row without padding."""
    lengths = [text["input_ids"].shape[1] for text in texts]
    row = {
        name: torch.cat([text[name] for text in texts], 1) for name in texts[0] if name != "attention_mask"
    }
    row[SEGMENTS] = torch.cat([torch.full((1, n), i) for i, n in enumerate(lengths, 1)], 1)
    row[POSITIONS] = torch.cat([torch.arange(n).unsqueeze(0) for n in lengths], 1)
    return row


def _text(
    names: Sequence[str], length: int, vocabulary: int, padding: Optional[int]
) -> Dict[str, torch.Tensor]:
    """One text of ids that are spread over the vocabulary. Anybody can write the token of padding into a
    text: here it stands in the middle and at the end."""
    ids = (torch.arange(length) + 1) * max(1, vocabulary // 17) % vocabulary
    if padding is not None:
        ids = torch.where(ids == padding, (ids + 1) % vocabulary, ids)
        ids[[1, -1]] = padding
    values = {
        "input_ids": ids,
        "attention_mask": torch.ones(length, dtype=torch.int64),
        "token_type_ids": torch.zeros(length, dtype=torch.int64),
    }
    return {name: values[name].unsqueeze(0) for name in names if name in values}


def _padding(model: nn.Module) -> Optional[int]:
    """The token of padding, if the model knows one; some keep it in a config of their own for text."""
    found = getattr(_text_config(model), "pad_token_id", None)
    return found if isinstance(found, int) and found >= 0 else None


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _ways_to_count(model: nn.Module) -> List[Tuple[Optional[int], Optional[int]]]:
    """How a model may count its positions: from which on, and which token it leaves out."""
    if POSITIONS not in _parameters(model):
        return [(None, None)]
    paddings = {
        getattr(part, "padding_idx", None) for part in model.modules() if not isinstance(part, nn.Embedding)
    }
    known = sorted(padding for padding in paddings if isinstance(padding, int))
    return [(0, None), *((padding + 1, leaves) for padding in known for leaves in (None, padding))]


def _parameters(model: nn.Module) -> Mapping[str, Any]:
    return inspect.signature(model.forward).parameters


def _apart(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest deviation, rounded: of two ways that are both right the first is taken."""
    pairs = zip(found, expected)
    return round(max(deviation(one.float().numpy(), other.float().numpy()) for one, other in pairs), 2)


def _refused(kind: str, why: str) -> ConfigError:
    return ConfigError(
        f"handler.layout: rows does not do for {kind}: with several texts in a row it {why}: use items"
    )
