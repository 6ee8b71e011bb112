"""Objectives: from a batch to a loss."""

from imagen_fast.objectives.causal import CausalObjective
from imagen_fast.objectives.classification import ClassificationObjective
from imagen_fast.objectives.joint import JointObjective, Weights
from imagen_fast.objectives.masked import MaskedConfig, MaskedObjective
from imagen_fast.objectives.output import Objective, Output
from imagen_fast.objectives.simmim import SimMIMConfig, SimMIMObjective

__all__ = [
    "CausalObjective",
    "ClassificationObjective",
    "JointObjective",
    "MaskedConfig",
    "MaskedObjective",
    "Objective",
    "Output",
    "SimMIMConfig",
    "SimMIMObjective",
    "Weights",
]
