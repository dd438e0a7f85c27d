"""Classifiers of texts whose own head would take padding for a token, or one text's token for another's.

    a decoder without a padding token    takes the last position      → gets a padding token that no text has
    an encoder-decoder                   takes the last end token,    → each row's own last one
                                         if all rows have as many
    neighbours' embeddings (MobileBERT)  see padding's embedding      → gets one whose embedding is zero
    a summary of the last token (XLNet)  takes the last position      → the last token under the mask

What comes of it is compared with the model as it was, like everything that is built.
"""

from __future__ import annotations

import inspect
from typing import Any, Optional

import torch
from torch import nn

from anyshape.building.pooling import last_token, picked


def needs_padding(model: nn.Module) -> bool:
    """Whether texts have to be padded with a token that no text has."""
    return _mixes_embeddings(model) or _pads_by_itself(model)


def _mixes_embeddings(model: nn.Module) -> bool:
    """Whether each token's embedding is joined with those of its neighbours, and with zeros at the ends."""
    return bool(getattr(getattr(model, "config", None), "trigram_input", False))


def _pads_by_itself(model: nn.Module) -> bool:
    """Whether the model looks for its last token and its config names no padding token to look for."""
    if (
        not hasattr(model, "resize_token_embeddings")
        or getattr(text_config(model), "pad_token_id", None) is not None
    ):
        return False
    # No other sign of it is the same in all of them, and most models look for nothing: running one to see
    # could change it.
    written = [vars(kind)["forward"] for kind in type(model).__mro__ if "forward" in vars(kind)]
    return any("pad_token_id" in inspect.getsource(forward) for forward in written)


def end_token(model: nn.Module) -> Optional[int]:
    """The token that an encoder-decoder's head looks for, or None for any other model."""
    config = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False) or not hasattr(model, "classification_head"):
        return None
    token = getattr(config, "eos_token_id", None)
    return token if isinstance(token, int) else None


def text_config(model: nn.Module) -> Any:
    """The config of what reads the text, which is a part of it where a model takes pictures, too."""
    config = getattr(model, "config", None)
    inner = getattr(config, "get_text_config", None)
    return config if inner is None else inner()


def fit(model: nn.Module, pad_id: int) -> nn.Module:
    """The model with a head that padding does not reach; `pad_id` is what texts are padded with."""
    if end_token(model) is not None:
        return EndTokenClassifier(model)
    if _summary_type(model) == "last":
        return LastTokenClassifier(model)
    if needs_padding(model):
        _add_padding_token(model, pad_id, zero=_mixes_embeddings(model))
    return model


def _summary_type(model: nn.Module) -> Optional[str]:
    if not hasattr(model, "sequence_summary"):
        return None
    kind: Optional[str] = getattr(text_config(model), "summary_type", None)
    return kind


def _add_padding_token(model: Any, pad_id: int, zero: bool) -> None:
    """One more embedding, behind those of all tokens: no text has it, so the head finds its last token.

    It is a copy of another token's: attention multiplies what comes of it by zero, and NaN would stay.
    `zero`: it is all zeros.
    """
    model.resize_token_embeddings(pad_id + 1, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    weight.data[pad_id] = 0.0 if zero else weight.data[0]
    model.get_input_embeddings().weight.requires_grad_(False)
    text_config(model).pad_token_id = pad_id


class EndTokenClassifier(nn.Module):
    """An encoder-decoder with a classification head on the decoder's state at the last end token of a text.

    Takes ``[batch, length]`` of int64, returns scores ``[batch, classes]``. Rows may have any number of end
    tokens, at least one.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.end: int = model.config.eos_token_id

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
        if hasattr(self.model, "_shift_right"):  # T5 and its kin; the others do it inside
            given["decoder_input_ids"] = self.model._shift_right(input_ids)
        states = _body(self.model)(**given, use_cache=False)[0]
        ends = (input_ids == self.end).to(torch.int64) * attention_mask
        later = ends.flip(1).cumsum(1).flip(1)  # end tokens here and behind
        return (self.model.classification_head(picked(states, ends * (later == 1).to(torch.int64))),)


class LastTokenClassifier(nn.Module):
    """A model whose summary takes the last position; returns scores ``[batch, classes]``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
        states = _body(self.model)(input_ids=input_ids, attention_mask=attention_mask, **more)[0]
        scores = self.model.sequence_summary(last_token(states, attention_mask).unsqueeze(1))
        project = getattr(self.model, "logits_proj", None)
        return (scores if project is None else project(scores),)


def _body(model: Any) -> Any:
    return getattr(model, model.base_model_prefix)
