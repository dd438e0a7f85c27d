"""Pictures padded with zeros to the largest size, one frozen trace. Fast to write, and not exact."""

import torch
from images import ImageBaseline

SIDE = 640


class ImageTraced(ImageBaseline):
    def load(self, folder):
        self.model = torch.jit.load(folder / f"image-{SIDE}x{SIDE}.pt").eval()

    def run(self, pixels):
        _, height, width = pixels.shape
        padded = torch.nn.functional.pad(pixels, (0, SIDE - width, 0, SIDE - height))
        return self.model(padded.unsqueeze(0))[0]
