"""Baseline 4: ONNX Runtime, one model with dynamic rows and tokens, all graph optimisations on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from sentences import SentenceBaseline


class OnnxRuntime(SentenceBaseline):
    def load(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings["threads"]
        options.inter_op_num_threads = 1
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.graph_optimization_level = level
        self.session = onnxruntime.InferenceSession(
            str(folder / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = self.session.run(None, {"ids": ids, "mask": mask})[0]
        return vectors
