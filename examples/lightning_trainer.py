"""Lightning's Trainer, on transformers' models."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

import imagen_fast  # + imagen_fast
from common import collate, groups, hugging_face, parser, write_losses


class Module(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.losses: list[float] = []

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        loss = self.model(**batch).loss
        self.log("loss", loss, prog_bar=True)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.AdamW(groups(self.model, decay=0.05), lr=5e-4)
        scheduler = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main() -> None:
    options = parser(__doc__).parse_args()
    lightning.seed_everything(0)
    model, dataset = hugging_face(options)
    model.train()  # Lightning leaves the mode of what it is given as it is
    if not options.original:
        print(imagen_fast.accelerate(model))  # + imagen_fast

    loader = DataLoader(
        dataset,
        options.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=collate(options.task),
        num_workers=options.workers,
    )
    last = ModelCheckpoint(
        options.out, "last", every_n_train_steps=options.steps, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        max_steps=options.steps,
        precision="bf16-mixed" if options.bf16 else "32-true",
        gradient_clip_val=1.0,
        callbacks=[last],
        default_root_dir=options.out,
        logger=False,
    )
    module = Module(model)
    trainer.fit(module, loader)
    write_losses(options, module.losses)


if __name__ == "__main__":
    main()
