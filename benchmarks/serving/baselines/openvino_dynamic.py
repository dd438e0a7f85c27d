"""Baseline 5: OpenVINO, one model with dynamic rows and tokens, float32 or bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from sentences import SentenceBaseline

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino(SentenceBaseline):
    def load(self, folder: Path) -> None:
        compiled = openvino.Core().compile_model(
            str(folder / "encoder.xml"),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": PRECISIONS[self.settings["dtype"]],
                "INFERENCE_NUM_THREADS": self.settings["threads"],
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_CPU_PINNING": False,  # two workers pinned alike would share one core
            },
        )
        self.request = compiled.create_infer_request()

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        self.request.infer([ids, mask])
        vectors: np.ndarray = self.request.get_output_tensor(0).data.copy()
        return vectors
