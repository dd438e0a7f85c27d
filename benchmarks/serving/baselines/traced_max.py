"""Baseline 1: one model traced at 512 tokens; every text is padded to 512. The AWS tutorial's way."""

import torch
from sentences import MAX_TOKENS, TorchSentenceBaseline


class TracedMax(TorchSentenceBaseline):
    def load(self, folder):
        self.model = torch.jit.load(folder / f"traced-{MAX_TOKENS}.pt").eval()

    def width(self, longest):
        return MAX_TOKENS
