"""OpenAI's embeddings, as its own clients and all that are built on them ask for them."""

from __future__ import annotations

import base64
from typing import Any, List, Optional, Sequence

import numpy as np
from msgspec import Meta, Struct
from typing_extensions import Annotated, Literal

from anyshape.errors import Refused
from anyshape.items import Item
from handler.apis.base import OtherApi
from handler.apis.vectors import resized
from handler.requests import Request


class _Body(Struct, forbid_unknown_fields=True):
    input: Any
    model: Optional[str] = None
    encoding_format: Optional[Literal["float", "base64"]] = None
    dimensions: Optional[Annotated[int, Meta(ge=1)]] = None
    user: Optional[str] = None


class Embeddings(OtherApi):
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

    def answer(self, answers: List[Any], request: Request, items: Sequence[Item]) -> Any:
        dimensions = self.body.dimensions
        vectors = [resized(answer, dimensions, dimensions is not None) for answer in answers]
        tokens = sum(item.size[0] for item in items)
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

    def error(self, error: Refused) -> Any:
        return {
            "error": {
                "message": self.message(error),
                "type": "invalid_request_error" if error.code < 500 else "server_error",
                "param": getattr(error, "param", None),
                "code": type(error).__name__,
            }
        }
