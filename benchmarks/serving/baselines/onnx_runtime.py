"""Baseline 4: ONNX Runtime, one model with dynamic rows and tokens, all graph optimisations on."""

import onnxruntime
from sentences import SentenceBaseline


class OnnxRuntime(SentenceBaseline):
    def load(self, folder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings["threads"]
        options.inter_op_num_threads = 1
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.graph_optimization_level = level
        self.session = onnxruntime.InferenceSession(
            str(folder / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def run(self, ids, mask):
        return self.session.run(None, {"ids": ids, "mask": mask})[0]
