"""What turns requests into items and outputs into answers: the serving half of each task, one per file."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Type

from anyshape.archive import ASSETS
from anyshape.errors import ConfigError
from anyshape.failures import EXITS
from anyshape.registry import load
from anyshape.settings import Settings
from anyshape.tasks.base import Task

TASKS = {
    "audio-classification": "anyshape.tasks.audio_classification:AudioClassification",
    "feature-extraction": "anyshape.tasks.feature_extraction:FeatureExtraction",
    "fill-mask": "anyshape.tasks.fill_mask:FillMask",
    "image-classification": "anyshape.tasks.image_classification:ImageClassification",
    "image-feature-extraction": "anyshape.tasks.image_feature_extraction:ImageFeatureExtraction",
    "image-segmentation": "anyshape.tasks.image_segmentation:ImageSegmentation",
    "multi-vector-embedding": "anyshape.tasks.multi_vector_embedding:MultiVectorEmbedding",
    "object-detection": "anyshape.tasks.object_detection:ObjectDetection",
    "question-answering": "anyshape.tasks.question_answering:QuestionAnswering",
    "sentence-embedding": "anyshape.tasks.sentence_embedding:SentenceEmbedding",
    "sparse-embedding": "anyshape.tasks.sparse_embedding:SparseEmbedding",
    "text-classification": "anyshape.tasks.text_classification:TextClassification",
    "text-ranking": "anyshape.tasks.text_ranking:TextRanking",
    "token-classification": "anyshape.tasks.token_classification:TokenClassification",
    "zero-shot-classification": "anyshape.tasks.zero_shot_classification:ZeroShotClassification",
}


def task_class(name: str, folder: Optional[Path] = None) -> Type[Task]:
    """The task called `name`, or ``module:Class`` in a file of `folder`.

    Raises ConfigError that lists what there is.
    """
    return load(TASKS, Task, name, "task", folder)


def load_task(settings: Settings, folder: Path) -> Task:
    """The recipe's task, with what was saved in `folder`, an unpacked archive, when it was built.

    Raises ConfigError where that cannot be used, whatever the task raises.
    """
    kind = task_class(settings.task, folder)
    try:
        task = kind(settings, folder / ASSETS)
    except (ConfigError, *EXITS):
        raise
    except BaseException as error:  # values of another type than the task writes, or a panic
        files = ", ".join(sorted(f"{ASSETS}/{path.name}" for path in (folder / ASSETS).glob("*.json")))
        raise ConfigError(
            f"the task {settings.task} cannot use what was saved in {files or ASSETS} "
            f"({type(error).__name__}: {error}): build the archive again"
        ) from error
    task.buckets = settings.buckets
    return task
