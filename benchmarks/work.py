"""The least work of what is computed, whoever computes it and however.

What peers of one case do beyond it is their own affair, so that shares of the roofline compare.

- Bytes: each input of the pass is read once and each output written once, of the rows that count. A forward
  and backward pass reads the output's gradient too and writes the inputs'; what lies between the two, saved
  or made again, has no need to reach memory. A training step reads and writes the weights of its products and
  their two moments, in float32. Images drawn step by step read in every step the weights, and the keys and
  values that it sees.
- Operations: two for each product and sum of the matrix products, of pairs that see each other only. A
  backward has two products for each of the forward, one for either factor; nothing is made again.
- Exponentials: one for each pair that sees another, or for each logit, in all passes together. Those of
  activations are not counted.

`kernels/cost.py` states what a launch of ours does, things made again included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from imagen_fast.kernels.cost import Work
from imagen_fast.models import DecoderConfig, PixelConfig, ViTConfig

# Weights and their two moments, read and written.
_BYTES_OF_A_TRAINED_WEIGHT = 24


def stated(work: Work, products_in: str, footprint: int | None = None) -> dict[str, Any]:
    """As the facts of a contender hold it.

    Args:
        products_in: `fp32` or `bf16`: of what type the factors of matrix products are.
        footprint: bytes of different data, where some are moved more than once.
    """
    return {
        "bytes": work.bytes,
        "operations": work.operations,
        "exponentials": work.exponentials,
        "products_in": products_in,
        "footprint": work.bytes if footprint is None else footprint,
    }


def attention(queries: int, keys: int, pairs: int, width: int, itemsize: int, backward: bool) -> Work:
    """Of rows and pairs of all images and heads together; `width` of one head."""
    tensors = (4 if backward else 2) * (queries + keys)  # q, out and k, v; with a backward their gradients
    operations = (3 if backward else 1) * 4 * pairs * width
    return Work(tensors * width * itemsize, operations, pairs)


def linear_cross_entropy(rows: int, width: int, levels: int, itemsize: int, backward: bool) -> Work:
    """With targets of 64 bits."""
    tensors = (2 if backward else 1) * (rows + levels) * width
    operations = (3 if backward else 1) * 2 * rows * width * levels
    return Work(tensors * itemsize + 8 * rows, operations, rows * levels)


# --- whole models -------------------------------------------------------------------------------------


class Linear(NamedTuple):
    """A layer of one image: so many rows. Of pixels nobody asks the gradient."""

    rows: int
    inputs: int
    outputs: int
    first: bool = False

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    @property
    def operations(self) -> int:
        return 2 * self.rows * self.weights


class Attention(NamedTuple):
    """Of one image: pairs that see each other; width and number of all heads."""

    pairs: int
    width: int
    heads: int

    @property
    def operations(self) -> int:
        return 4 * self.pairs * self.width


Layer = Linear | Attention


def forward(layers: Iterable[Layer]) -> tuple[int, int]:
    """Operations and exponentials of one image."""
    layers = list(layers)
    return sum(layer.operations for layer in layers), sum(
        layer.pairs * layer.heads for layer in layers if isinstance(layer, Attention)
    )


def weights(layers: Iterable[Layer]) -> int:
    return sum(layer.weights for layer in layers if isinstance(layer, Linear))


def training_step(layers: Sequence[Layer], images: int, input_bytes: int, logits: int = 0) -> Work:
    """Forward, backward and update on a batch.

    Args:
        input_bytes: of all images.
        logits: of one image, where its loss is a softmax's.
    """
    operations, exponentials = forward(layers)
    unasked = sum(layer.operations for layer in layers if isinstance(layer, Linear) and layer.first)
    moved = _BYTES_OF_A_TRAINED_WEIGHT * weights(layers) + input_bytes
    return Work(moved, images * (3 * operations - unasked), images * (exponentials + logits))


def masked_autoencoder(
    encoder: ViTConfig, decoder: DecoderConfig, visible: int, predicted: int
) -> list[Layer]:
    """Of an image that shows `visible` patches beside the class token, with `predicted` of the others asked.

    Of the last block of a full decoder nobody reads what is not predicted.
    """
    seen, width = 1 + visible, decoder.embed_dim
    found: list[Layer] = [Linear(visible, encoder.patch_values, encoder.embed_dim, first=True)]
    found += encoder.depth * _block(seen, seen, encoder.embed_dim, encoder.heads, encoder.mlp_ratio)
    found.append(Linear(seen, encoder.embed_dim, width))
    if decoder.kind == "cross":
        found += decoder.depth * _block(predicted, seen, width, decoder.heads, decoder.mlp_ratio)
    else:
        tokens = seen + predicted
        found += (decoder.depth - 1) * _block(tokens, tokens, width, decoder.heads, decoder.mlp_ratio)
        found += _block(predicted, tokens, width, decoder.heads, decoder.mlp_ratio)
    return [*found, Linear(predicted, width, encoder.patch_values)]


def classifier(encoder: ViTConfig, classes: int) -> list[Layer]:
    """Of an image whose class the class token tells; of the last block nobody reads another."""
    tokens, width = 1 + encoder.patches, encoder.embed_dim
    found: list[Layer] = [Linear(encoder.patches, encoder.patch_values, width, first=True)]
    found += (encoder.depth - 1) * _block(tokens, tokens, width, encoder.heads, encoder.mlp_ratio)
    found += _block(1, tokens, width, encoder.heads, encoder.mlp_ratio)
    return [*found, Linear(1, width, classes)]


def pixel_transformer(config: PixelConfig) -> list[Layer]:
    """Of tokens that are pixels of a palette, which are looked up and not projected."""
    pairs = int(config.attended.window(config.grid).visible(torch.device("cpu")).sum())
    tokens, width = config.tokens, config.embed_dim
    block = _block(tokens, tokens, width, config.heads, config.mlp_ratio, pairs)
    return [*config.depth * block, Linear(tokens, width, config.choices)]


def _block(
    queries: int, keys: int, width: int, heads: int, mlp_ratio: float, pairs: int | None = None
) -> list[Layer]:
    """Queries and what follows them, of some tokens; keys and values, of all."""
    hidden = round(width * mlp_ratio)
    return [
        Linear(queries, width, width),
        Linear(keys, width, 2 * width),
        Attention(queries * keys if pairs is None else pairs, width, heads),
        Linear(queries, width, width),
        Linear(queries, width, hidden),
        Linear(queries, hidden, width),
    ]
