"""Our loader in transformers' Trainer."""

from typing import Any

import transformers


class ResumeLoader(transformers.TrainerCallback):
    """Let the loader that `get_train_dataloader` returns go on exactly where a checkpoint was written.

    Set `ignore_data_skip=True` beside it: the Trainer itself would decode all that it skips. Where the
    batches of an epoch are no whole number of `gradient_accumulation_steps`, the Trainer then takes the last
    batches of the epoch that it goes on in for an update begun, and ends that with the next epoch's.
    """

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        # The Trainer counts updates, of which the last of an epoch may take fewer batches than the others.
        batches, together = len(train_dataloader), args.gradient_accumulation_steps
        epoch, updates = divmod(state.global_step, -(-batches // together))
        train_dataloader.seek(epoch * batches + updates * together)
