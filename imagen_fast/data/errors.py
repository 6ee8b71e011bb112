"""What can be wrong with data, each with one sentence: what was wrong, the value, what is allowed."""

from imagen_fast.errors import DataError


class MissingFolder(DataError):
    """A path that is not there, is not a folder, or cannot be read."""


class UnknownData(DataError):
    """A name that is neither an embedded set nor a folder."""


class NoImages(DataError):
    """A folder in which no file looks like an image."""


class NoLabels(DataError):
    """Labels are needed of a source that has none."""


class TooFewImages(DataError):
    """A set too small for what is asked of it."""


class AllCorrupt(DataError):
    """Not one image of a source could be decoded."""


class CorruptImage(DataError):
    """One image that cannot be decoded; the message is the reason, without the path."""
