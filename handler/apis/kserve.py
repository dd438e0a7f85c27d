"""KServe's open inference protocol, version 2: texts as tensors of BYTES."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from msgspec import Struct

from anyshape.errors import Refused
from anyshape.items import Read
from handler.apis.base import OtherApi, Request, WrongField
from handler.responses import encode

OUTPUT = "output"
PAIR = ("text", "text_pair")


class _Tensor(Struct, forbid_unknown_fields=True):
    name: str
    shape: List[int]
    datatype: str
    data: Optional[List[Any]] = None
    parameters: Optional[Dict[str, Any]] = None


class _Output(Struct, forbid_unknown_fields=True):
    name: str
    parameters: Optional[Dict[str, Any]] = None


class _Body(Struct, forbid_unknown_fields=True):
    inputs: List[_Tensor]
    id: Optional[str] = None
    parameters: Optional[Dict[str, Any]] = None
    outputs: Optional[List[_Output]] = None


class Infer(OtherApi):
    """`infer`: a tensor of texts, or two called text and text_pair.

    Sentence vectors are answered as FP32 of ``[texts][width]``, all else as BYTES: one JSON for each text.
    """

    how = (
        'send {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a text"]}]}, '
        "or two such tensors called text and text_pair"
    )

    def read(self, body: Any) -> Request:
        self.asked = self.convert(body, _Body)
        for output in self.asked.outputs or []:
            if output.name != OUTPUT:
                raise WrongField("outputs", f"outputs: the one output is called {OUTPUT}")
            self._no_binary("outputs", output.parameters)
        parameters = dict(self.asked.parameters or {})
        self._no_binary("parameters", parameters)
        parameters.pop("binary_data_output", None)
        tensors = {tensor.name: self._texts(tensor) for tensor in self.asked.inputs}
        if len(self.asked.inputs) == 1:
            (inputs,) = tensors.values()
        elif len(self.asked.inputs) == 2 and set(tensors) == set(PAIR):
            first, second = (tensors[name] for name in PAIR)
            if len(first) != len(second):
                raise WrongField("inputs", f"inputs: {len(first)} texts and {len(second)} to pair them with")
            inputs = [dict(zip(PAIR, pair)) for pair in zip(first, second)]
        else:
            raise WrongField("inputs", f"inputs has {len(self.asked.inputs)} tensors: {self.how}")
        return Request(inputs, True, parameters, api=self)

    def _texts(self, tensor: _Tensor) -> List[Any]:
        self._no_binary(f"the tensor {tensor.name[:50]!r}", tensor.parameters)
        if tensor.datatype != "BYTES":
            raise WrongField("inputs", f"a tensor of texts has the datatype BYTES: {self.how}")
        texts = self.texts(_flat(tensor.data or []), "data")
        if len(texts) != math.prod(tensor.shape) or max(tensor.shape, default=0) != len(texts):
            raise WrongField(
                "inputs", f"the shape is {tensor.shape[:8]}, and the data are {len(texts)} texts"
            )
        return texts

    def no_ids(self, field: str) -> str:
        return f"{field} holds numbers, and a tensor of BYTES has texts: {self.how}"

    def _no_binary(self, where: str, parameters: Optional[Dict[str, Any]]) -> None:
        asked = parameters or {}
        if asked.get("binary_data_size") or asked.get("binary_data") or asked.get("binary_data_output"):
            raise WrongField("inputs", f"{where} asks for binary tensors: send and take them as JSON")

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        output: Dict[str, Any] = {"name": OUTPUT}
        if self.served.model.task.name == "sentence-embedding":
            vectors = np.stack(answers)
            output.update(datatype="FP32", shape=list(vectors.shape), data=vectors.ravel())
        else:
            texts = [encode(answer).decode() for answer in answers]
            output.update(datatype="BYTES", shape=[len(texts)], data=texts)
        said = {} if self.asked.id is None else {"id": self.asked.id}
        return {"model_name": self.served.name, **said, "outputs": [output]}

    def error(self, error: Refused) -> Any:
        return {"error": self.message(error)}


def _flat(data: List[Any]) -> List[Any]:
    """The elements of nested lists, in their order; two levels at the most."""
    return [each for row in data for each in (row if isinstance(row, list) else [row])]
