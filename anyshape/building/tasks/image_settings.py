"""How a model wants its pictures: decided once, when the archive is built."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from PIL import Image

from anyshape.errors import ConfigError
from anyshape.images import INTERPOLATIONS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_settings(asked: Mapping[str, Any], model: Any, processor: Any) -> Dict[str, Any]:
    """mean, std, rescale, channels, multiple_of and interpolation: the recipe's, else the model's own, else
    its image processor's, else ImageNet's and bilinear; for a grey picture the average of ImageNet's colours.

    The model's own are attributes that say what they are for, `image_` and the option: any network may have
    `channels` or a `stride`. timm's models carry mean, std and interpolation in their `pretrained_cfg`; one
    of torchvision may be given those of its weights, as `model.transforms = weights.transforms()`.

    `asked` are the recipe's task options, `processor` may be None. Raises ConfigError, which names the
    option.
    """
    if getattr(processor, "do_flip_channel_order", False):
        raise ConfigError("handler.model: its image processor swaps red and blue, which is not supported")
    config = getattr(model, "config", None)
    timm = getattr(model, "pretrained_cfg", None)
    timm = timm if isinstance(timm, Mapping) else {}
    presets = getattr(model, "transforms", None)  # as torchvision's weights give them
    shape = timm.get("input_size")
    brought: Dict[str, Any] = {
        "mean": getattr(processor, "image_mean", timm.get("mean") or _listed(presets, "mean")),
        "std": getattr(processor, "image_std", timm.get("std") or _listed(presets, "std")),
        "rescale": getattr(processor, "rescale_factor", None),
        "channels": getattr(config, "num_channels", shape[0] if isinstance(shape, (list, tuple)) else None),
        "multiple_of": getattr(processor, "size_divisor", None),
        "interpolation": _known(
            getattr(
                processor, "resample", timm.get("interpolation") or getattr(presets, "interpolation", None)
            )
        ),
    }
    if getattr(processor, "do_normalize", None) is False:
        brought.update(mean=[0.0], std=[1.0])
    if getattr(processor, "do_rescale", None) is False:
        brought["rescale"] = 1

    def setting(option: str, default: Any) -> Any:
        values = (asked.get(option), getattr(model, f"image_{option}", None), brought[option])
        return next((value for value in values if value is not None), default)

    grey = setting("channels", None) == 1
    mean, std = (
        _numbers(name, setting(name, [sum(usual) / 3] if grey else usual))
        for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    if grey:  # one number is enough to say that; colours that the model brings are averaged
        mean = mean if asked.get("mean") is not None else [sum(mean) / len(mean)]
        std = std if asked.get("std") is not None else [sum(std) / len(std)]
    (rescale,) = _numbers("rescale", [setting("rescale", 1 / 255)])
    channels = setting("channels", max(len(mean), len(std)))
    multiple = setting("multiple_of", 1)
    if isinstance(channels, bool) or channels not in (1, 3):
        raise ConfigError(f"handler.task_options.channels must be 1 (grey) or 3 (RGB), not {channels!r}")
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise ConfigError(
            f"handler.task_options.multiple_of must be a positive whole number, not {multiple!r}"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"handler.task_options.{name} must be {channels} numbers, one for each channel, not {values}"
            )
    interpolation = setting("interpolation", "bilinear")
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(
            f"handler.task_options.interpolation must be one of {', '.join(INTERPOLATIONS)}, not "
            f"{interpolation!r}"
        )
    if 0 in std:
        raise ConfigError("handler.task_options.std must not be 0: pixels are divided by it")
    found = {"mean": mean, "std": std, "rescale": rescale, "channels": channels, "multiple_of": multiple}
    return {**found, "interpolation": interpolation}


def _known(way: Any) -> Any:
    """What a model resizes by, as Pillow names it: Pillow's number, a name, or torchvision's constant; None
    for one that Pillow does not have."""
    way = getattr(way, "value", way)
    if isinstance(way, int) and way in set(Image.Resampling):
        return Image.Resampling(way).name.lower()
    return way if way in INTERPOLATIONS else None


def _listed(presets: Any, name: str) -> Any:
    values = getattr(presets, name, None)
    return list(values) if isinstance(values, (list, tuple)) else None


def _numbers(option: str, values: Any) -> List[float]:
    numbers = values if isinstance(values, (list, tuple)) else ()
    if not numbers or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        raise ConfigError(f"handler.task_options.{option} must be numbers, not {values!r}")
    return [float(number) for number in numbers]
