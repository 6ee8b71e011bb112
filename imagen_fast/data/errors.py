"""What can be wrong with data, each with one sentence: what was wrong, the value, what is allowed."""

from typing import Self

from imagen_fast.errors import DataError


class MissingFolder(DataError):
    """A path that is not there, is not a folder, or cannot be read."""


class UnknownData(DataError):
    """A name or an object that stands for no set of images."""


class BrokenShard(DataError):
    """A tar shard that is not there, or in which images cannot be found."""


class OddDataset(DataError):
    """A Hugging Face dataset that images cannot be taken from as it is."""


class NoImages(DataError):
    """A folder, or shards, in which no file looks like an image."""


class NoLabels(DataError):
    """Labels are needed of a source that has none."""

    @classmethod
    def of(cls, name: str) -> Self:
        return cls(
            f"{name!r} has no labels; they come from two or more subfolders that hold all the images, "
            "from a class number in a cls file for every image in the shards, or from a ClassLabel column"
        )


class TooFewImages(DataError):
    """A set too small for what is asked of it."""


class AllCorrupt(DataError):
    """Not one image of a source could be decoded."""


class CorruptImage(DataError):
    """One image that cannot be decoded; the message is the reason, without the path."""
