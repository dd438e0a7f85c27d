"""Baseline 5: OpenVINO, one model with dynamic rows and tokens, float32 or bfloat16."""

import openvino
from sentences import SentenceBaseline

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino(SentenceBaseline):
    def load(self, folder):
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

    def run(self, ids, mask):
        self.request.infer([ids, mask])
        return self.request.get_output_tensor(0).data.copy()
