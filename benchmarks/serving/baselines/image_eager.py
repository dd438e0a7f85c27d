"""Every picture at its own size through the eager model, one by one: exact."""

from images import ImageBaseline

from recipes.models.mobilenet import mobilenet_v2


class ImageEager(ImageBaseline):
    def load(self, folder):
        self.model = mobilenet_v2().eval()

    def run(self, pixels):
        return self.model(pixels.unsqueeze(0))[0]
