"""A loop with timm's loader, optimizer, scheduler and saver; timm's ViT, and transformers' ViTMAE."""

import torch
from timm.data import create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, dispatch_clip_grad, random_seed

import imagen_fast  # + imagen_fast
from common import batches, hugging_face, images, normalisation, parser, timm_classifier, write_losses


def main() -> None:
    options = parser(__doc__).parse_args()
    random_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.task == "finetune":
        dataset = images(options)
        model = timm_classifier(options, len(dataset.classes))
        size = model.patch_embed.img_size[0]
    else:
        model, dataset = hugging_face(options)
        size = model.config.image_size
    model.to(device).train()
    if not options.original:
        print(imagen_fast.accelerate(model))  # + imagen_fast

    mean, std = normalisation(options, model)
    loader = create_loader(
        dataset,
        (3, size, size),
        options.batch_size,
        is_training=True,
        scale=(0.5, 1.0),
        hflip=0.0,
        mean=mean,
        std=std,
        num_workers=options.workers,
        device=device,
        use_prefetcher=device.type == "cuda",
    )
    optimizer = create_optimizer_v2(model, "adamw", lr=5e-4, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        num_epochs=-(-options.steps // len(loader)),
        updates_per_epoch=len(loader),
        step_on_epochs=False,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(options.out), max_history=1)
    criterion = LabelSmoothingCrossEntropy()

    losses = []
    for step, (pixels, labels) in enumerate(batches(loader, options.steps), 1):
        pixels, labels = pixels.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            if options.task == "finetune":
                loss = criterion(model(pixels), labels)
            else:
                loss = model(pixels).loss
        optimizer.zero_grad()
        loss.backward()
        dispatch_clip_grad(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step_update(step)
        losses.append(loss.item())

    saver.save_checkpoint(epoch=0)
    write_losses(options, losses)


if __name__ == "__main__":
    main()
