"""The loader in the loops of others: plain PyTorch, transformers' Trainer, Lightning."""

import pytest
import torch
from torch import nn

from imagen_fast.data import Loader, open_source

COUNT, BATCH = 40, 8


def make_loader(**options) -> Loader:
    source = open_source("digits").subset(range(COUNT))
    return Loader(source, BATCH, 8, seed=5, threads=2, dtype=torch.float32, **options)


class Recording(nn.Module):
    """A classifier that notes the sum of each batch it is trained on."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.seen = []

    def forward(self, pixel_values, labels=None):
        self.seen.append(float(pixel_values.sum()))
        loss = nn.functional.cross_entropy(self.linear(pixel_values.flatten(1)), labels)
        return {"loss": loss}


@pytest.fixture(scope="module")
def sums():
    """Of the batches of the first three epochs."""
    with make_loader() as loader:
        return [float(loader.at(step).images.sum()) for step in range(3 * len(loader))]


def test_a_plain_loop(sums):
    model = Recording()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with make_loader() as loader:
        for _ in range(2):
            for images, labels, _ in loader:
                model(images, labels)["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
        assert 0 < loader.wait_share < 1
    assert model.seen == sums[:10]


def hugging_face(folder, model, steps, loader):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return loader

    class GoOn(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            loader.seek(state.global_step)

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        save_steps=4,
        ignore_data_skip=True,  # the loader knows where it is
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_steps=100,
    )
    return Trainer(model=model, args=arguments, callbacks=[GoOn()])


def test_the_trainer_of_transformers(tmp_path, sums):
    model = Recording()
    with make_loader(as_dicts=True) as loader:
        hugging_face(tmp_path, model, 12, loader).train()
    assert model.seen == sums[:12]


def test_it_goes_on_in_the_trainer_of_transformers(tmp_path, sums):
    straight, model = Recording(), Recording()
    with make_loader(as_dicts=True) as loader:
        hugging_face(tmp_path / "straight", straight, 12, loader).train()
    with make_loader(as_dicts=True) as loader:
        hugging_face(tmp_path / "resumed", model, 12, loader).train(
            resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-8")
        )
    assert model.seen == sums[8:12]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), straight.parameters(), strict=True))


def lightning_module():
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Recording()

        def training_step(self, batch, number):
            return self.model(batch.images, batch.labels)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return lightning, Module()


def lightning_trainer(lightning, folder, **options):
    return lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path, sums):
    lightning, straight = lightning_module()
    with make_loader() as loader:
        lightning_trainer(lightning, tmp_path, max_epochs=2, enable_checkpointing=False).fit(straight, loader)
    assert straight.model.seen == sums[:10]


@pytest.mark.filterwarnings("ignore")
def test_it_goes_on_in_lightning_in_the_middle_of_an_epoch(tmp_path, sums):
    lightning, first = lightning_module()
    with make_loader() as loader:
        trainer = lightning_trainer(lightning, tmp_path, max_steps=7)
        trainer.fit(first, loader)
        trainer.save_checkpoint(tmp_path / "seven.ckpt")
    assert first.model.seen == sums[:7]
    _, second = lightning_module()
    with make_loader() as loader:
        lightning_trainer(lightning, tmp_path, max_steps=12).fit(
            second, loader, ckpt_path=tmp_path / "seven.ckpt"
        )
    assert second.model.seen == sums[7:12]
