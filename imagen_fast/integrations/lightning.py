"""Our loader in Lightning."""

from typing import Any

import lightning.pytorch as pl

from imagen_fast.data import Loader


class ResumeLoader(pl.Callback):
    """Let a loader go on exactly where a checkpoint was written, at the end of an epoch too.

    Lightning saves the state of a training data loader that has one with every checkpoint, but gives it back
    only where the epoch was not over. (After a run that `max_steps` ended at the end of an epoch it takes the
    next batch for a whole epoch.)

    Args:
        loader: the one that `fit` gets.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader")
        if states:
            self.loader.load_state_dict(states[0])
