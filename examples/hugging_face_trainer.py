"""Hugging Face's Trainer, on transformers' models, with peft's LoRA if asked for."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import imagen_fast  # + imagen_fast
from common import collate, hugging_face, parser, write_losses


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--lora", action="store_true", help="train low-rank adapters of the attention")
    options = arguments.parse_args()
    if options.lora and options.task != "finetune":
        arguments.error("--lora is for finetune")
    torch.manual_seed(0)
    model, dataset = hugging_face(options)
    if options.lora:
        # The names of two generations of transformers' ViT.
        attention = r".*\.(query|value|q_proj|v_proj)"
        adapters = LoraConfig(r=8, target_modules=attention, modules_to_save=["classifier"])
        model = get_peft_model(model, adapters)
    if not options.original:
        print(imagen_fast.accelerate(model))  # + imagen_fast

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.out),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=5e-4,
            weight_decay=0.05,
            lr_scheduler_type="cosine",
            warmup_steps=options.steps // 10,
            bf16=options.bf16,
            use_cpu=not torch.cuda.is_available(),
            dataloader_num_workers=options.workers,
            dataloader_drop_last=True,
            remove_unused_columns=False,
            logging_steps=1,
            report_to="none",
        ),
        train_dataset=dataset,
        data_collator=collate(options.task),
    )
    trainer.train()
    trainer.save_model()
    write_losses(options, [told["loss"] for told in trainer.state.log_history if "loss" in told])


if __name__ == "__main__":
    main()
