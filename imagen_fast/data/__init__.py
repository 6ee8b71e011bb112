"""Where pictures come from, and how they reach the model: sources, decoding, augmentation, batches, masks.

Everything random here is a pure function of a seed and a position, so that a run continues bit for bit
from nothing but a step number.
"""

from imagen_fast.data.augment import Augmentation, CenterCrop, RandomResizedCrop, augmentation_for
from imagen_fast.data.batch import Batch
from imagen_fast.data.decode import DecodedBatch, decode_batch, decode_image, open_image
from imagen_fast.data.embedded import digits, photos
from imagen_fast.data.errors import (
    AllCorrupt,
    BrokenShard,
    CorruptImage,
    MissingFolder,
    NoImages,
    NoLabels,
    OddDataset,
    TooFewImages,
    UnknownData,
)
from imagen_fast.data.hugging_face import HuggingFaceSource
from imagen_fast.data.loader import Loader
from imagen_fast.data.masks import Masks, blockwise_masks, masks_from_noise, random_masks
from imagen_fast.data.open import EMBEDDED, open_source
from imagen_fast.data.sources import ArraySource, FolderSource, Source
from imagen_fast.data.split import few_per_class, split
from imagen_fast.data.views import Views
from imagen_fast.data.webdataset import TarSource

__all__ = [
    "EMBEDDED",
    "AllCorrupt",
    "ArraySource",
    "Augmentation",
    "Batch",
    "BrokenShard",
    "CenterCrop",
    "CorruptImage",
    "DecodedBatch",
    "FolderSource",
    "HuggingFaceSource",
    "Loader",
    "Masks",
    "MissingFolder",
    "NoImages",
    "NoLabels",
    "OddDataset",
    "RandomResizedCrop",
    "Source",
    "TarSource",
    "TooFewImages",
    "UnknownData",
    "Views",
    "augmentation_for",
    "blockwise_masks",
    "decode_batch",
    "decode_image",
    "digits",
    "few_per_class",
    "masks_from_noise",
    "open_image",
    "open_source",
    "photos",
    "random_masks",
    "split",
]
