"""What a task does where archives are built: the building half of each, in a file of the same name."""

from __future__ import annotations

from anyshape.building.own import load_other_half
from anyshape.building.source import Source
from anyshape.building.tasks.base import TaskBuilder
from anyshape.recipe import Section
from anyshape.settings import Settings
from anyshape.tasks import task_class

BUILDERS = {
    "audio-classification": "anyshape.building.tasks.audio_classification:AudioClassificationBuilder",
    "feature-extraction": "anyshape.building.tasks.feature_extraction:FeatureExtractionBuilder",
    "fill-mask": "anyshape.building.tasks.fill_mask:FillMaskBuilder",
    "image-classification": "anyshape.building.tasks.image_classification:ImageClassificationBuilder",
    "image-feature-extraction": "anyshape.building.tasks.image_feature_extraction:ImageFeaturesBuilder",
    "image-segmentation": "anyshape.building.tasks.image_segmentation:ImageSegmentationBuilder",
    "multi-vector-embedding": "anyshape.building.tasks.multi_vector_embedding:MultiVectorEmbeddingBuilder",
    "object-detection": "anyshape.building.tasks.object_detection:ObjectDetectionBuilder",
    "question-answering": "anyshape.building.tasks.question_answering:QuestionAnsweringBuilder",
    "sentence-embedding": "anyshape.building.tasks.sentence_embedding:SentenceEmbeddingBuilder",
    "sparse-embedding": "anyshape.building.tasks.sparse_embedding:SparseEmbeddingBuilder",
    "text-classification": "anyshape.building.tasks.text_classification:TextClassificationBuilder",
    "text-ranking": "anyshape.building.tasks.text_ranking:TextRankingBuilder",
    "token-classification": "anyshape.building.tasks.token_classification:TokenClassificationBuilder",
    "zero-shot-classification": "anyshape.building.tasks.zero_shot_classification:ZeroShotBuilder",
}


def create_builder(section: Section, settings: Settings, source: Source) -> TaskBuilder:
    """The building half of the recipe's task; a task of one's own, beside the recipe, names its builder.

    Raises ConfigError for a name that does not exist.
    """
    served = task_class(section.task, source.folder)
    half = load_other_half(BUILDERS, TaskBuilder, section.task, served, "builder", "task", source.folder)
    return half(section, settings, source)
