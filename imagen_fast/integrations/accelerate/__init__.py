"""Our operations in a model that somebody has already: `accelerate`."""

from imagen_fast.integrations.accelerate.model import Acceleration, accelerate

__all__ = ["Acceleration", "accelerate"]
