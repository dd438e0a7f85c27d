"""Answers to questions about a text, as transformers' pipeline `question-answering` gives them."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from anyshape.errors import UnprocessableInput
from anyshape.items import Answer, Item, Parts, Row
from anyshape.padding import crop
from anyshape.tasks.base import Parameters, boolean, finite, whole_number
from anyshape.tasks.text import Text, TextTask
from anyshape.tasks.token_inputs import places
from anyshape.tasks.windows import OPTIONS, usual_stride

MOST = 1000  # answers to one question
OUT = -10000.0  # a score of what must not answer
NO_SCORE = 1_000_000.0


class QuestionAnswering(TextTask):
    """Spans of the context, with scores; neither the question nor padding ever answers.

    A long context slides through windows, with the question in each; the best spans of all of them answer.
    """

    name = "question-answering"
    fields = ("context", "question")
    per_token = True
    over_max = ("reject", "truncate", "window")
    options = OPTIONS
    parameters = {
        **TextTask.parameters,
        "top_k": whole_number(1, MOST),
        "max_answer_len": whole_number(1, 10_000),
        "doc_stride": whole_number(0, 100_000),
        "handle_impossible_answer": boolean,
        "align_to_words": boolean,
    }

    @property
    def strategy(self) -> str:  # type: ignore[override]
        return "only_second" if self.context == 1 else "only_first"

    @property
    def context(self) -> int:
        """Which text of the pair is the context: the second, but where the tokenizer pads on the left."""
        return 1 if self.saved["question_first"] else 0

    def _text(self, value: Any) -> Text:
        if self.token_inputs.by_word:
            texts: List[str] = [*self.token_inputs.read(value, self.fields, self._checked)]
            context, question = texts if len(texts) == 2 else [texts[0], ""]
        elif isinstance(value, dict) and set(value) == {"question", "context"}:
            question, context = self._checked(value["question"]), self._checked(value["context"])
        else:
            raise UnprocessableInput('an input is {"question": "...", "context": "..."}')
        for key, text in (("question", question), ("context", context)):
            if not text:
                raise UnprocessableInput(f"the {key} is empty")
        return (question, context) if self.context == 1 else (context, question)

    def _origin(self, encoding: Any, text: Text) -> Dict[str, Any]:
        return {
            "context": text[self.context],
            "offsets": places(encoding, text[self.context], self.context),
            "words": encoding.word_ids,
            "sequences": encoding.sequence_ids,
        }

    def _sliding(self, encoding: Any, text: Text, parameters: Parameters) -> Tuple[int, int]:
        own = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == self.context]
        return (own[0], own[-1] + 1) if own else (0, 0)

    def _stride(self, parameters: Parameters) -> int:
        usual = self.chosen["stride"]
        usual = usual_stride(self.limit, share=2) if usual is None else usual
        return int(parameters.get("doc_stride", usual))

    def unpad(self, row: Row, item: Item) -> Row:
        return tuple(crop(part, item.size, 0) for part in row)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        return self.merge([row], Parts([item]), parameters)

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        top_k = parameters.get("top_k", 1)
        found: Dict[str, Dict[str, Any]] = {}
        impossible = NO_SCORE
        for row, item in zip(rows, parts.items):
            no_answer, spans = self._spans(row, item, parameters)
            impossible = min(impossible, no_answer)
            for start, end, score in spans:
                text = item.origin["context"][start:end]
                kept = found.setdefault(
                    text.lower(), {"score": 0.0, "start": start, "end": end, "answer": text}
                )
                kept["score"] += score
        answers = list(found.values())
        if parameters.get("handle_impossible_answer", False):
            answers.append({"score": impossible, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]
        return answers[0] if len(answers) == 1 else answers

    def _spans(
        self, row: Row, item: Item, parameters: Parameters
    ) -> Tuple[float, List[Tuple[int, int, float]]]:
        """The score of no answer in this window, and spans of it in characters with their scores."""
        own = np.asarray([sequence == self.context for sequence in item.origin["sequences"]])
        own |= np.asarray(item.data["input_ids"]) == self.saved["cls_token_id"]
        start, end = (_probabilities(finite(np.asarray(part, np.float32)), own) for part in row)
        no_answer = float(start[0] * end[0])
        start[0] = end[0] = 0.0
        aligned = parameters.get("align_to_words", True)
        top_k = parameters.get("top_k", 1)
        best = _best_spans(
            start, end, own, top_k * 2 + 10 if aligned else top_k, parameters.get("max_answer_len", 15)
        )
        spans = []
        for first, last, score in best:
            if aligned:
                first, last = _whole_words(item, first, last)
            offsets = item.origin["offsets"]
            spans.append((offsets[first][0], offsets[last][1], score))
        return no_answer, spans


def _probabilities(scores: Any, own: Any) -> Any:
    """Softmax over the tokens that may answer."""
    scores = np.where(own, scores, np.float32(OUT))
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _best_spans(start: Any, end: Any, own: Any, count: int, longest: int) -> List[Tuple[int, int, float]]:
    """The likeliest spans of at most `longest` tokens, first and last token and score, best first."""
    scores = np.tril(np.triu(np.outer(start, end)), longest - 1)
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")[:1] if count == 1 else _largest(flat, count)
    firsts, lasts = np.unravel_index(order, scores.shape)
    return [
        (int(first), int(last), float(scores[first, last]))
        for first, last in zip(firsts, lasts)
        if first <= last and own[first] and own[last]
    ]


def _largest(values: Any, count: int) -> Any:
    """Where the `count` largest values are, largest first."""
    if len(values) > count:
        places = np.argpartition(-values, count)[:count]
        return places[np.argsort(-values[places], kind="stable")]
    return np.argsort(-values, kind="stable")


def _whole_words(item: Item, first: int, last: int) -> Tuple[int, int]:
    """The first token of the word that one is in, and the last of the other's; tokens of no word stay."""
    words, sequences = item.origin["words"], item.origin["sequences"]
    if words[first] is None or words[last] is None:
        return first, last
    while first > 0 and (words[first - 1], sequences[first - 1]) == (words[first], sequences[first]):
        first -= 1
    end = len(words) - 1
    while last < end and (words[last + 1], sequences[last + 1]) == (words[last], sequences[last]):
        last += 1
    return first, last
