"""A loop with Hugging Face's Accelerate, on transformers' models."""

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

import imagen_fast  # + imagen_fast
from common import batches, collate, groups, hugging_face, parser, write_losses


def main() -> None:
    options = parser(__doc__).parse_args()
    accelerator = Accelerator(mixed_precision="bf16" if options.bf16 else "no")
    set_seed(0)
    model, dataset = hugging_face(options)
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
    optimizer = AdamW(groups(model, decay=0.05), lr=5e-4)
    scheduler = get_cosine_schedule_with_warmup(optimizer, options.steps // 10, options.steps)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)

    losses = []
    model.train()
    for batch in batches(loader, options.steps):
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(accelerator.gather(loss.detach()).mean().item())

    accelerator.save_state(str(options.out / "state"))
    accelerator.unwrap_model(model).save_pretrained(options.out)
    write_losses(options, losses)


if __name__ == "__main__":
    main()
