"""Small models of other libraries, and what a training step of theirs gives."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}


@dataclass
class Step:
    """A model, and its loss on made-up images."""

    model: nn.Module
    loss: Callable[[nn.Module], Tensor]

    def gradients(self, model: nn.Module | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        model = self.model if model is None else model
        model.zero_grad()
        torch.manual_seed(1)  # of drop path and of jittered positions
        loss = self.loss(model)
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _images(size: int = 32) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def _classes() -> Tensor:
    return torch.tensor([0, 1, 0])


def _classifier(name: str, **more: object) -> Step:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**SIZES, **more)
    model = getattr(transformers, f"{name}ForImageClassification")(config)
    return Step(model, lambda m: m(pixel_values=_images(), labels=_classes()).loss)


def _backbone(name: str, config: str) -> Step:
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, name)(getattr(transformers, config)(**SIZES))
    return Step(model, lambda m: m(pixel_values=_images()).pooler_output.square().mean())


def _vitmae() -> Step:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(**SIZES, **DECODER, norm_pix_loss=True)
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(2))
    model = transformers.ViTMAEForPreTraining(config)
    return Step(model, lambda m: m(pixel_values=_images(), noise=noise).loss)


def imagegpt_config(**more: object):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 17, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 2}
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.ImageGPTConfig(**sizes | drops | more)


def _imagegpt() -> Step:
    transformers = pytest.importorskip("transformers")
    ids = torch.randint(0, 16, (2, 64), generator=torch.Generator().manual_seed(3))
    model = transformers.ImageGPTForCausalImageModeling(imagegpt_config())
    return Step(model, lambda m: m(input_ids=ids, labels=ids).loss)


def _timm(name: str, size: int, **more: object) -> Step:
    timm = pytest.importorskip("timm")
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    model = timm.create_model(name, img_size=size, depth=2, num_classes=5, **more)
    return Step(model, lambda m: nn.functional.cross_entropy(m(_images(size)), _classes()))


STEPS: dict[str, Callable[[], Step]] = {
    "ViT": lambda: _classifier("ViT"),
    "ViTMAE": _vitmae,
    "BEiT": lambda: _classifier("Beit", use_relative_position_bias=True),
    "DeiT": lambda: _classifier("DeiT"),
    "DINOv2": lambda: _classifier("Dinov2"),
    "DINOv3": lambda: _backbone("DINOv3ViTModel", "DINOv3ViTConfig"),
    "SigLIP": lambda: _backbone("SiglipVisionModel", "SiglipVisionConfig"),
    "ImageGPT": _imagegpt,
    "timm ViT": lambda: _timm("vit_tiny_patch16_224", 64),
    "timm BEiT": lambda: _timm("beit_base_patch16_224", 64, embed_dim=64, num_heads=2),
    "timm Eva": lambda: _timm("eva02_tiny_patch14_224", 56),
    "timm DINOv3": lambda: _timm("vit_small_patch16_dinov3", 64),
}


def step_of(name: str) -> Step:
    """With fresh weights, the same at every call."""
    torch.manual_seed(0)
    step = STEPS[name]()
    step.model.train()
    return step


def assert_alike(ours, theirs, bound=1e-5):
    """Losses and gradients, beside the largest gradient of the model: of some, only rounding is left."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=bound, atol=bound)
    assert ours[1].keys() == theirs[1].keys()
    largest = max(gradient.norm() for gradient in theirs[1].values())
    for name, gradient in theirs[1].items():
        assert (ours[1][name] - gradient).norm() <= bound * (gradient.norm() + 0.1 * largest), name
