"""The paths of text-embeddings-inference."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from msgspec import Meta, Struct, field
from typing_extensions import Annotated

from anyshape import __version__
from anyshape.errors import BadRequest, Refused
from anyshape.items import Read
from handler.apis.base import OtherApi, Request, WrongField, given
from handler.apis.vectors import resized


class _Cut(Struct, forbid_unknown_fields=True):
    """What every body may say of texts that are too long."""

    truncate: Optional[bool] = None
    truncation_direction: Optional[str] = None

    def parameters(self) -> Dict[str, Any]:
        side = (self.truncation_direction or "").lower() or None
        if side not in (None, "left", "right"):
            raise WrongField("truncation_direction", "truncation_direction must be left or right")
        return given(truncation=self.truncate, truncation_side=side)


class _Prompted(_Cut):
    prompt_name: Optional[str] = None

    def parameters(self) -> Dict[str, Any]:
        return {**super().parameters(), **given(prompt_name=self.prompt_name)}


class _Texts(_Prompted, kw_only=True):
    inputs: Any


class _EmbedBody(_Texts):
    normalize: Optional[bool] = None
    dimensions: Optional[Annotated[int, Meta(ge=1)]] = None


class _Classes(Struct, forbid_unknown_fields=True):
    """The parameters of the Hub's own client for classes."""

    top_k: Optional[int] = None
    function_to_apply: Optional[str] = None


class _PredictBody(_Cut, kw_only=True):
    inputs: Any
    raw_scores: bool = False
    parameters_: Optional[_Classes] = field(default=None, name="parameters")


class _RerankBody(_Cut, kw_only=True):
    query: str
    texts: List[str]
    raw_scores: bool = False
    return_text: bool = False


class _Compared(Struct, forbid_unknown_fields=True):
    source_sentence: str
    sentences: List[str]


class _SimilarityBody(Struct, forbid_unknown_fields=True):
    inputs: _Compared
    parameters: Optional[_Prompted] = None


class Tei(OtherApi):
    """What its paths share: how they refuse."""

    how = 'send application/json such as {"inputs": "a text"}'
    to_cut = ', or send "truncate": true'

    def error(self, error: Refused) -> Any:
        kind = "Empty" if isinstance(error, _Empty) else "Validation" if error.code < 500 else "Backend"
        return {"error": self.message(error), "error_type": kind}


class _Empty(BadRequest):
    """A list in which there is nothing, which is an error of a kind of its own there."""


class _Listed(Tei):
    """A path that takes a text or a list of them, and answers with a list either way."""

    body: type = _Texts

    def read(self, body: Any) -> Request:
        self.asked: Any = self.convert(body, self.body)
        texts = self.texts(self.asked.inputs, "inputs")
        if not texts:
            raise _Empty(f"inputs is an empty list: {self.how}")
        return Request(texts, isinstance(self.asked.inputs, list), self.asked.parameters(), api=self)


class Embed(_Listed):
    """`embed`: a vector for each text, at length one unless `normalize` is false."""

    body = _EmbedBody

    def read(self, body: Any) -> Request:
        request = super().read(body)
        sentence = getattr(self.served.model.task, "saved", {}).get("sentence", {})
        if self.asked.normalize is False and sentence.get("normalizes", True):
            raise WrongField(
                "normalize",
                "normalize cannot be false: the model itself ends in it, and its vectors have length one",
            )
        return request

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        normalize = self.asked.normalize is not False
        return [resized(answer, self.asked.dimensions, normalize) for answer in answers]


class EmbedAll(_Listed):
    """`embed_all`: a vector for each token of each text."""

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        return [answer[0] if answer.ndim == 3 else answer for answer in answers]


class EmbedSparse(_Listed):
    """`embed_sparse`: the numbers that are not zero; the task answers them as {"indices", "values"}."""

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        return [
            [{"index": i, "value": value} for i, value in zip(answer["indices"], answer["values"])]
            for answer in answers
        ]


class Predict(Tei):
    """`predict`: every class of a text or a pair, best first. There ``["a", "b"]`` is one pair."""

    how = 'send {"inputs": "a text"}, a pair ["a", "b"], or a list of such lists [["a"], ["b", "c"]]'

    def read(self, body: Any) -> Request:
        asked = self.convert(body, _PredictBody)
        classes = asked.parameters_ or _Classes()
        function = "none" if asked.raw_scores else classes.function_to_apply
        parameters = {**asked.parameters(), **given(function_to_apply=function), "top_k": classes.top_k}
        inputs = asked.inputs
        self.many = isinstance(inputs, list) and any(isinstance(each, list) for each in inputs)
        sequences = [self._sequence(each) for each in (inputs if self.many else [inputs])]
        return Request(sequences, self.many, parameters, api=self)

    def _sequence(self, value: Any) -> Any:
        texts = self.texts(value, "inputs")
        if len(texts) not in (1, 2):
            raise WrongField("inputs", f"inputs has a list of {len(texts)} texts: {self.how}")
        return texts[0] if len(texts) == 1 else {"text": texts[0], "text_pair": texts[1]}

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        return answers if self.many else answers[0]


class Rerank(Tei):
    """`rerank`: how well each text answers a query, best first; from a model that gives one score."""

    how = 'send {"query": "a text", "texts": ["a text", ...]}'

    def read(self, body: Any) -> Request:
        self.asked = self.convert(body, _RerankBody)
        if not self.asked.texts:
            raise _Empty(f"texts is an empty list: {self.how}")
        task = self.served.model.task
        parameters = self.asked.parameters()
        if task.name == "text-classification":
            labels = task.saved["labels"]  # type: ignore[attr-defined]
            if len(labels) != 1:
                raise WrongField("", f"the model has {len(labels)} classes, and ranking needs a single score")
            parameters["function_to_apply"] = "sigmoid"
        if self.asked.raw_scores and task.name == "text-classification":
            parameters["function_to_apply"] = "none"
        elif self.asked.raw_scores:
            parameters["raw_scores"] = True
        pairs = [{"text": self.asked.query, "text_pair": text} for text in self.asked.texts]
        return Request(pairs, True, parameters, api=self)

    def place(self, i: int) -> str:
        return f"texts[{i}]"

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        scores = [answer["score"] if isinstance(answer, Mapping) else answer for answer in answers]
        ranks = [{"index": i, "score": score} for i, score in enumerate(scores)]
        if self.asked.return_text:
            for rank in ranks:
                rank["text"] = self.asked.texts[rank["index"]]
        return sorted(ranks, key=lambda rank: -rank["score"])


class Similarity(Tei):
    """`similarity`: the cosine between a sentence and each of some others."""

    how = 'send {"inputs": {"source_sentence": "a text", "sentences": ["a text", ...]}}'
    uncounted = 1  # the sentence that all others are compared with

    def read(self, body: Any) -> Request:
        asked = self.convert(body, _SimilarityBody)
        if not asked.inputs.sentences:
            raise _Empty(f"inputs.sentences is an empty list: {self.how}")
        parameters = (asked.parameters or _Prompted()).parameters()
        texts = [asked.inputs.source_sentence, *asked.inputs.sentences]
        return Request(texts, True, parameters, api=self)

    def place(self, i: int) -> str:
        return f"inputs.sentences[{i - 1}]" if i else "inputs.source_sentence"

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        source, *others = (resized(answer, None, True) for answer in answers)
        return [float(source @ other) for other in others]


class Health(Tei):
    """`health`: the model answers, as this very answer shows."""

    bodyless = True

    def read(self, body: Any) -> Request:
        return Request([], api=self)

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        return {}


class Info(Health):
    """`info`: what is served, and how much of it a request may ask."""

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        model = self.served.model
        return {
            "model_id": self.served.name,
            "model_sha": None,
            "model_dtype": model.index.dtype,
            "served_model_name": self.served.name,
            "model_type": _model_type(model.task),
            "max_input_length": getattr(model.task, "limit", model.buckets[-1][0]),
            "max_concurrent_requests": self.served.queue,
            "max_batch_tokens": max(rows * bucket[0] for bucket, rows in model.index.shapes),
            "max_batch_requests": max(rows for _, rows in model.index.shapes),
            "max_client_batch_size": model.settings.max_items,
            "auto_truncate": model.settings.over_max == "truncate",
            "tokenization_workers": 1,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }


def _model_type(task: Any) -> Dict[str, Any]:
    saved = getattr(task, "saved", {})
    labels = saved.get("labels") or []
    if task.name == "text-ranking" or (task.name == "text-classification" and len(labels) == 1):
        kind = "reranker"
    elif task.name == "text-classification":
        kind = "classifier"
    else:
        return {"embedding": {"pooling": saved.get("sentence", {}).get("pooling")}}
    id2label = {str(i): label for i, label in enumerate(labels)}
    return {kind: {"id2label": id2label, "label2id": {label: i for i, label in enumerate(labels)}}}
