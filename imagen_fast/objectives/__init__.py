"""Objectives: from a batch to a loss."""

from imagen_fast.objectives.classification import ClassificationObjective
from imagen_fast.objectives.masked import MaskedConfig, MaskedObjective
from imagen_fast.objectives.output import Objective, Output

__all__ = ["ClassificationObjective", "MaskedConfig", "MaskedObjective", "Objective", "Output"]
