"""A loop in plain PyTorch, on transformers' models."""

import torch
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

import imagen_fast  # + imagen_fast
from common import batches, collate, groups, hugging_face, parser, write_losses


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, dataset = hugging_face(options)
    model.to(device).train()
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
    optimizer = torch.optim.AdamW(groups(model, decay=0.05), lr=5e-4)
    scheduler = get_cosine_schedule_with_warmup(optimizer, options.steps // 10, options.steps)

    losses = []
    for batch in batches(loader, options.steps):
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.autocast(device, torch.bfloat16, enabled=options.bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    options.out.mkdir(parents=True, exist_ok=True)
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    torch.save({name: of.state_dict() for name, of in state.items()}, options.out / "checkpoint.pt")
    write_losses(options, losses)


if __name__ == "__main__":
    main()
