"""What the image baselines share: a JPEG in, the five best classes out, as the pipeline words them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
WARM_SIZES = ((480, 640), (640, 480), (427, 640), (640, 640), (375, 500))
TOP = 5


class ImageBaseline:
    """Subclasses `load` a model and `run` it on one picture: float32 [3, height, width] → logits [1000]."""

    def initialize(self, context: Any) -> None:
        settings = context.model_yaml_config["handler"]
        torch.set_num_threads(settings["threads"])
        self.load(Path(context.system_properties["model_dir"]))
        with torch.inference_mode():
            for size in WARM_SIZES * 4:
                self.run(torch.zeros(3, *size))

    def load(self, folder: Path) -> None:
        raise NotImplementedError

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def handle(self, data: list[dict[str, bytes]], context: Any) -> list[bytes]:
        return [self.answer(row["body"] if "body" in row else row["data"]) for row in data]

    def answer(self, body: bytes) -> bytes:
        picture = Image.open(io.BytesIO(body)).convert("RGB")
        values = (np.asarray(picture, dtype=np.float32) / 255 - MEAN) / STD
        pixels = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
        with torch.inference_mode():
            best = self.run(pixels).softmax(0).topk(TOP)
        pairs = zip(best.values.tolist(), best.indices.tolist())
        return orjson.dumps([{"label": f"LABEL_{index}", "score": score} for score, index in pairs])
