"""How a model wants its recordings: decided once, when the archive is built."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from anyshape.errors import ConfigError
from anyshape.tasks.audio import RATES

# What the model gets is the waveform itself, be it normalised; others compute spectra in front of the model.
WAVEFORM = "Wav2Vec2FeatureExtractor"


def audio_settings(asked: Mapping[str, Any], model: Any, extractor: Any) -> Dict[str, Any]:
    """sampling_rate and normalize: the recipe's, else the model's own (attributes `audio_sampling_rate` and
    `audio_normalize`), else its feature extractor's, which may be None.

    Raises ConfigError, which names the option.
    """
    kind = type(extractor).__name__
    if extractor is not None and kind != WAVEFORM:
        raise ConfigError(
            f"handler.model: its {kind} computes features in front of the model, which is not known to be "
            "exact: let handler.model be a function that returns a module of waveforms, which computes them "
            "itself"
        )
    brought = {
        "sampling_rate": getattr(extractor, "sampling_rate", None),
        "normalize": getattr(extractor, "do_normalize", None),
    }

    def setting(option: str) -> Any:
        values = (asked.get(option), getattr(model, f"audio_{option}", None), brought[option])
        return next((value for value in values if value is not None), None)

    rate, normalize = setting("sampling_rate"), setting("normalize")
    if rate is None:
        raise ConfigError(
            "handler.task_options.sampling_rate is missing: say how many samples a second the model takes, "
            "as in 16000"
        )
    if isinstance(rate, bool) or not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise ConfigError(
            f"handler.task_options.sampling_rate must be a whole number from {RATES[0]} to {RATES[1]}, not "
            f"{rate!r}"
        )
    for option, value in (("normalize", normalize), ("resample", asked.get("resample"))):
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"handler.task_options.{option} must be true or false, not {value!r}")
    return {"sampling_rate": rate, "normalize": bool(normalize)}
