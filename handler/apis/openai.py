"""OpenAI's embeddings, as its own clients and all that are built on them ask for them."""

from __future__ import annotations

import base64
from typing import Any, List, Literal, Optional, Sequence

import numpy as np
from msgspec import Meta, Struct
from typing_extensions import Annotated

from anyshape.errors import Refused
from anyshape.items import Read
from handler.apis.base import OtherApi, Request, tokens_of
from handler.apis.vectors import resized


class _Body(Struct, forbid_unknown_fields=True):
    input: Any
    model: Optional[str] = None
    encoding_format: Optional[Literal["float", "base64"]] = None
    dimensions: Optional[Annotated[int, Meta(ge=1)]] = None
    user: Optional[str] = None


class OpenAi(OtherApi):
    """What its paths share: how they refuse."""

    def error(self, error: Refused) -> Any:
        return {
            "error": {
                "message": self.message(error),
                "type": "invalid_request_error" if error.code < 500 else "server_error",
                "param": getattr(error, "param", None),
                "code": type(error).__name__,
            }
        }


class Models(OpenAi):
    """`v1/models`: the one that is served here, for clients that ask before they choose."""

    bodyless = True

    def read(self, body: Any) -> Request:
        return Request([], api=self)

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        model = {"id": self.served.name, "object": "model", "created": 0, "owned_by": "anyshape"}
        return {"object": "list", "data": [model]}


class Embeddings(OpenAi):
    """`v1/embeddings`. A vector that is cut to `dimensions` is brought to length one again."""

    how = 'send application/json such as {"input": "a text", "model": "any"}'

    def read(self, body: Any) -> Request:
        self.body = self.convert(body, _Body)
        return Request(self.texts(self.body.input, "input"), many=isinstance(self.body.input, list), api=self)

    def no_ids(self, field: str) -> str:
        return (
            f"{super().no_ids(field)}; LangChain's OpenAIEmbeddings sends texts with "
            "check_embedding_ctx_length=False"
        )

    def place(self, i: int) -> str:
        return f"input[{i}]"

    def answer(self, answers: List[Any], request: Request, read: Sequence[Read]) -> Any:
        dimensions = self.body.dimensions
        vectors = [resized(answer, dimensions, dimensions is not None) for answer in answers]
        tokens = tokens_of(read)
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": self._written(vector)}
                for i, vector in enumerate(vectors)
            ],
            "model": self.served.name if self.body.model is None else self.body.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _written(self, vector: np.ndarray) -> Any:
        if self.body.encoding_format != "base64":
            return vector
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
