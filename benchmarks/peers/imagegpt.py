"""transformers' ImageGPTForCausalImageModeling, trained as its Trainer trains it, and its own sampling."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from imagen_fast.benchmarks.peers import TRANSFORMERS, trainer
from imagen_fast.benchmarks.pixel_model import SEED
from imagen_fast.benchmarks.step import TrainingStep
from imagen_fast.models import PixelConfig
from imagen_fast.models.imagegpt import imagegpt_to_ours

ImageGPTConfig, ImageGPTForCausalImageModeling = TRANSFORMERS.load(
    "ImageGPTConfig", "ImageGPTForCausalImageModeling"
)


def build(config: PixelConfig) -> nn.Module:
    """A model with random weights and without dropout, whose noise would be another's."""
    return ImageGPTForCausalImageModeling(
        ImageGPTConfig(
            vocab_size=config.choices + 1,  # the last is the start token
            n_positions=config.tokens,
            n_embd=config.embed_dim,
            n_layer=config.depth,
            n_head=config.heads,
            n_inner=round(config.embed_dim * config.mlp_ratio),
            layer_norm_epsilon=config.norm_eps,
            activation_function=config.activation,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


def random_model(config: PixelConfig) -> nn.Module:
    """The same random weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return build(config)


def started(pixels: Tensor, start: int) -> Tensor:
    """The pixels [B, N] one place later, after a start token: place n predicts pixel n."""
    return nn.functional.pad(pixels[:, :-1], (1, 0), value=start)


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Of every pixel [B, N], given those before it: [B, N, V]; nothing is cached."""
    return model(input_ids=started(pixels, model.lm_head.out_features), use_cache=False).logits  # type: ignore[union-attr, arg-type]


def training_step(
    model: nn.Module, batch: tuple[Tensor], dtype: torch.dtype, compiled: bool = False
) -> TrainingStep:
    """The loss is made of its logits as it makes it, but for all pixels: its own takes the tokens that it is
    given for all that there are, and so leaves out the last.
    """
    colours = model.lm_head.out_features

    def loss(values: Tensor) -> Tensor:
        pixels = values[..., 0]
        return nn.functional.cross_entropy(logits(model, pixels).flatten(0, 1), pixels.flatten())

    return trainer.training_step(
        model, loss, batch, dtype, compiled, lambda given: _under_our_names(given, colours)
    )


def own_training_step(
    model: nn.Module, batch: tuple[Tensor], dtype: torch.dtype, compiled: bool = False
) -> TrainingStep:
    """With the loss that it makes of labels: of all pixels but the last, which is not among its tokens."""
    start = model.lm_head.out_features

    def loss(values: Tensor) -> Tensor:
        tokens = started(values[..., 0], start)
        return model(input_ids=tokens, labels=tokens, use_cache=False).loss

    return trainer.training_step(model, loss, batch, dtype, compiled)


def _under_our_names(gradients: dict[str, Tensor], colours: int) -> dict[str, Tensor]:
    ours = imagegpt_to_ours(gradients, colours)
    del ours["head.project.bias"]  # theirs has none
    return ours


def compiled(model: nn.Module) -> nn.Module:
    """A copy for `generate`, compiled once for all lengths of its growing cache."""
    model = copy.deepcopy(model)
    model.forward = torch.compile(model.forward, dynamic=True)  # type: ignore[method-assign]
    return model


@torch.inference_mode()
def generate(model: nn.Module, images: int, tokens: int, **more: object) -> Tensor | dict[str, Tensor]:
    """Draw so many pixels of images: [B, 1 + tokens] with the start token, or what `more` asks for.

    With its default cache, which grows. Its static cache is silently wrong for this model: the model does
    not know that places of the cache are empty, and attends to them.
    """
    start = torch.full((images, 1), model.lm_head.out_features, device=model.device)  # type: ignore[union-attr, arg-type]
    return model.generate(  # type: ignore[operator, union-attr]
        input_ids=start,
        max_new_tokens=tokens,
        do_sample=True,
        top_k=0,
        use_cache=True,
        pad_token_id=0,  # never drawn for padding: no token ends a sequence
        **more,
    )
