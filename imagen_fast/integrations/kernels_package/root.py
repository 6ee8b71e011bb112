"""What a kernel repository shows: written as the `__init__` of its package."""

from imagen_fast.ops import *  # noqa: F403
from imagen_fast.ops import layers as layers
