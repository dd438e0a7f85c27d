"""Baseline 7: one AOTInductor package with dynamic rows and tokens: our fastest engine without buckets."""

import torch
from sentences import TorchSentenceBaseline


class AotInductor(TorchSentenceBaseline):
    def load(self, folder):
        package = folder / f"dynamic-{self.settings['dtype']}.pt2"
        self.model = torch._inductor.aoti_load_package(str(package))
