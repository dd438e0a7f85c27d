"""Baseline 2: the AWS application note's way: a dictionary of traces, the first length that fits, batch 1."""

import torch
from sentences import TorchSentenceBaseline

LENGTHS = (64, 128, 256, 512)


class FirstFit(TorchSentenceBaseline):
    def load(self, folder):
        self.models = {n: torch.jit.load(folder / f"traced-{n}.pt").eval() for n in LENGTHS}

    def width(self, longest):
        return next(length for length in LENGTHS if longest <= length)

    def model(self, ids, mask):
        return self.models[ids.shape[1]](ids, mask)
