"""From the classes of tokens to entities, by the rules of transformers' pipeline `token-classification`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

Entity = Dict[str, Any]
Joined = Callable[[List[str]], str]


@dataclass
class Token:
    """One token of a text: `start` and `end` in characters, `index` in tokens, special ones included.

    `continues`: it is a later part of a word.
    """

    word: str
    scores: Any  # one probability per class
    start: int
    end: int
    index: int
    continues: bool


def one_per_token(tokens: Sequence[Token], labels: Sequence[str]) -> List[Entity]:
    """Every token with its best class."""
    entities = []
    for token in tokens:
        best = int(token.scores.argmax())
        entities.append(
            {
                "entity": labels[best],
                "score": float(token.scores[best]),
                "index": token.index,
                "word": token.word,
                "start": token.start,
                "end": token.end,
            }
        )
    return entities


def one_per_word(
    tokens: Sequence[Token], labels: Sequence[str], strategy: str, joined: Joined
) -> List[Entity]:
    """Every word with one class: that of its `first` token, of its surest (`max`), or of their `average`."""
    words: List[List[Token]] = []
    for token in tokens:
        if words and token.continues:
            words[-1].append(token)
        else:
            words.append([token])
    entities = []
    for word in words:
        if strategy == "first":
            scores = word[0].scores
        elif strategy == "max":
            scores = max(word, key=lambda token: token.scores.max()).scores
        else:
            scores = np.mean([token.scores for token in word], axis=0)
        best = int(scores.argmax())
        entities.append(
            {
                "entity": labels[best],
                "score": float(scores[best]),
                "word": joined([token.word for token in word]),
                "start": word[0].start,
                "end": word[-1].end,
            }
        )
    return entities


def group_entities(entities: Sequence[Entity], joined: Joined) -> List[Entity]:
    """Neighbours of one kind as one entity; `B-` begins a new one."""
    groups: List[List[Entity]] = []
    for entity in entities:
        begins, tag = _parts(entity["entity"])
        if groups and not begins and tag == _parts(groups[-1][-1]["entity"])[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return [
        {
            "entity_group": group[0]["entity"].split("-", 1)[-1],
            "score": float(np.mean([entity["score"] for entity in group])),
            "word": joined([entity["word"] for entity in group]),
            "start": group[0]["start"],
            "end": group[-1]["end"],
        }
        for group in groups
    ]


def _parts(label: str) -> Tuple[bool, str]:
    """``B-PER`` → begins, PER. A label without a prefix continues."""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label
