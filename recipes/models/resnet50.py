"""ResNet-50 in plain torch, as transformers brings it."""

from __future__ import annotations

from typing import Any

import torch


def resnet50() -> Any:
    """`microsoft/resnet-50` (ImageNet) from the Hugging Face hub or its local cache, in eval mode.

    [B, 3, H, W] float32 → logits [B, 1000]. Raises OSError where neither has it.
    """
    from transformers import ResNetForImageClassification

    model = ResNetForImageClassification.from_pretrained("microsoft/resnet-50")
    model.labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    return model.eval()


def random_resnet50() -> Any:
    """The same architecture with random weights, for tests and timings; always the same ones.

    The batch norms' statistics are random too: fresh ones map zero to zero, which would hide padding.
    """
    from transformers import ResNetConfig, ResNetForImageClassification

    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = ResNetForImageClassification(ResNetConfig(num_labels=1000))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(0.0, 0.3)
    torch.random.set_rng_state(state)
    return model.eval()
