"""The same engines behind LitServe: `python litserve_app.py SETTINGS.json`.

Settings: folder, module (onnx_runtime or openvino_dynamic), class, port, workers, threads, batch_size,
together, dtype. One by one LitServe calls `predict` with one text, batched with a list.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Response
from sentences import to_json


class SentenceApi(litserve.LitAPI):  # type: ignore[misc]  # not installed beside the linters
    def __init__(self, settings: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.chosen = settings

    def setup(self, device: str) -> None:
        module = importlib.import_module(self.chosen["module"])
        self.engine = getattr(module, self.chosen["class"])()
        self.engine.set_up(Path(self.chosen["folder"]), self.chosen)

    def decode_request(self, request: dict[str, str]) -> str:
        return request["input"]

    def batch(self, inputs: list[str]) -> list[str]:
        return list(inputs)

    def unbatch(self, output: Any) -> Any:
        return output

    def predict(self, given: Any) -> Any:
        if isinstance(given, list):
            return [self.body(*pair) for pair in zip(*self.engine.embed(given))]
        return self.body(*(values[0] for values in self.engine.embed([given])))

    def body(self, vector: np.ndarray, ratio: float) -> tuple[bytes, str]:
        return to_json(vector), f"{ratio:.4f}"

    def encode_response(self, output: tuple[bytes, str]) -> Response:
        body, ratio = output
        headers = {"X-Padding-Ratio": ratio}
        return Response(content=body, media_type="application/json", headers=headers)


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    batched = settings["together"]
    api = SentenceApi(
        settings,
        max_batch_size=settings["batch_size"] if batched else 1,
        batch_timeout=0.002 if batched else 0.0,
        enable_async=False,
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=settings["workers"], timeout=120)
    server.run(
        host="127.0.0.1",
        port=settings["port"],
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
