"""The one training loop and what it needs: optimiser, schedule, checkpoints, logs."""

from imagen_fast.train.checkpoint import Checkpoint, load_checkpoint, load_into, load_weights, save_checkpoint
from imagen_fast.train.loop import Diverged, FitConfig, FitResult, fit
from imagen_fast.train.optimizer import MasterAdamW
from imagen_fast.train.precision import bf16_is_fast, choose_device, working_type
from imagen_fast.train.run import Run

__all__ = [
    "Checkpoint",
    "Diverged",
    "FitConfig",
    "FitResult",
    "MasterAdamW",
    "Run",
    "bf16_is_fast",
    "choose_device",
    "fit",
    "load_checkpoint",
    "load_into",
    "load_weights",
    "save_checkpoint",
    "working_type",
]
