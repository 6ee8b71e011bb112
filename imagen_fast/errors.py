"""The exceptions that a user can cause, each with one sentence: what was wrong, the value, what is allowed.

The command line prints that sentence and ends with status 2; everything else is a defect of ours and
shows its traceback.
"""


class ImagenFastError(Exception):
    """Base of every error that a user's input or machine can cause."""


class InvalidInput(ImagenFastError, ValueError):
    """An argument that cannot be taken."""


class BackendUnavailable(ImagenFastError, RuntimeError):
    """A back-end was forced that cannot serve this call here."""


class DataError(ImagenFastError, ValueError):
    """A data source that cannot be read."""


class CheckpointError(ImagenFastError, ValueError):
    """A checkpoint or run folder that cannot be loaded."""


class MissingPackage(ImagenFastError, ImportError):
    """An optional package is needed that is not installed."""
