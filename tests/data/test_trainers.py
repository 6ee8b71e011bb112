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


def hugging_face(folder, model, steps, loader, together=1):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from imagen_fast.integrations.transformers import ResumeLoader

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return loader

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=together,
        save_steps=2,
        ignore_data_skip=True,  # the loader knows where it is
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_steps=100,
    )
    return Trainer(model=model, args=arguments, callbacks=[ResumeLoader()])


def test_the_trainer_of_transformers(tmp_path, sums):
    model = Recording()
    with make_loader(as_dicts=True) as loader:
        hugging_face(tmp_path, model, 12, loader).train()
    assert model.seen == sums[:12]


@pytest.mark.parametrize(("together", "steps", "done"), [(1, 12, 8), (2, 6, 2), (2, 6, 4)])
def test_it_goes_on_in_the_trainer_of_transformers(tmp_path, sums, together, steps, done):
    """Of 5 batches an epoch, two together, the last is an update alone."""
    straight, model = Recording(), Recording()
    with make_loader(as_dicts=True) as loader:
        hugging_face(tmp_path / "straight", straight, steps, loader, together).train()
    with make_loader(as_dicts=True) as loader:
        hugging_face(tmp_path / "resumed", model, steps, loader, together).train(
            resume_from_checkpoint=str(tmp_path / "straight" / f"checkpoint-{done}")
        )
    before = {8: 8, 2: 4, 4: 7}[done]
    assert straight.seen == sums[: len(straight.seen)]
    assert model.seen == straight.seen[before:]
    if together > 1:  # the Trainer's own count of what is left of an epoch is another: see ResumeLoader
        return
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
@pytest.mark.parametrize(("limit", "further"), [("max_steps", 5), ("max_epochs", 1)])
def test_it_goes_on_in_lightning(tmp_path, sums, limit, further):
    """In the middle of an epoch and at its end."""
    lightning, first = lightning_module()
    from imagen_fast.integrations.lightning import ResumeLoader

    until = {"max_steps": 7, "max_epochs": 2}[limit]
    done = {"max_steps": 7, "max_epochs": 10}[limit]
    with make_loader() as loader:
        trainer = lightning_trainer(lightning, tmp_path, **{limit: until})
        trainer.fit(first, loader)
        trainer.save_checkpoint(tmp_path / "some.ckpt")
    assert first.model.seen == sums[:done]
    _, second = lightning_module()
    with make_loader() as loader:
        go_on = [ResumeLoader(loader)]
        lightning_trainer(lightning, tmp_path, **{limit: until + further}, callbacks=go_on).fit(
            second, loader, ckpt_path=tmp_path / "some.ckpt"
        )
    assert second.model.seen == sums[done : done + 5]
