from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from imagen_fast import native
from imagen_fast.errors import InvalidInput


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 5), (64, 31), (129, 33), (300, 96)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_packed_linear_layer(instruction_set, rows, inputs, outputs, with_bias, poisoned_memory):
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    bias = torch.randn(outputs) if with_bias else None
    wide = None if bias is None else bias.double()
    error = (native.PackedLinear(weight, bias)(x) - linear(x.double(), weight.double(), wide)).abs()
    # A rounding for each term of the longest partial sum, for each of those, and for the bias.
    roundings = min(inputs, 128) + inputs // 128 + 2
    size = linear(x.double().abs(), weight.double().abs(), None if wide is None else wide.abs())
    assert bool((error <= torch.finfo(torch.float32).eps / 2 * roundings * size).all())


def test_a_row_does_not_depend_on_the_others(instruction_set):
    x, layer = torch.randn(40, 300), native.PackedLinear(torch.randn(130, 300), torch.randn(130))
    together = layer(x)
    for size in (1, 3, 8, 17):
        assert torch.equal(torch.cat([layer(part) for part in x.split(size)]), together)


def steps(tokens, heads=3, width=20, batch=2, slots=40):
    """A cache that is filled `tokens` at a time: what was put in so far, what comes out, and what it saw."""
    cache = native.StepCache(batch, slots, heads, width)
    kept: list[list[torch.Tensor]] = [[], []]
    first = 0
    for number, count in enumerate(tokens):
        qkv = torch.randn(batch, count, 3, heads, width)
        q, k, v = qkv.unbind(2)  # views, as those of a fused projection
        kept[0].append(k)
        kept[1].append(v)
        last, low = first + count, min(number, first)
        mask = None
        if number % 2:
            mask = torch.rand(count, last - low) < 0.5
            mask[torch.arange(count), first - low + torch.arange(count)] = True
        out = cache.attend(q, k, v, first, last, low, mask)
        keys, values = (torch.cat(x, 1)[:, low:] for x in kept)
        yield out, (q, keys, values), mask
        first = last


@pytest.mark.parametrize("width", [3, 8, 20, 32, 64])
@pytest.mark.parametrize("tokens", [(1,) * 9, (13, 1, 2, 20, 3)], ids=str)
def test_attention_to_what_is_kept(instruction_set, tokens, width, error_bound, poisoned_memory):
    torch.manual_seed(0)
    found = []
    for out, tensors, mask in steps(tokens, width=width):
        exact, plain = (
            scaled_dot_product_attention(*(x.to(t).transpose(1, 2) for x in tensors), attn_mask=mask)
            for t in (torch.float64, torch.float32)
        )
        found.append((out, exact.transpose(1, 2), plain.transpose(1, 2)))
    error_bound(*(torch.cat(parts, 1) for parts in zip(*found, strict=True)))


def test_an_image_does_not_depend_on_the_others(instruction_set):
    q, k, v = torch.randn(3, 5, 12, 4, 16).unbind()

    def attend(images):
        cache = native.StepCache(len(images), 12, 4, 16)
        parts = [
            cache.attend(*(x[images, a:b] for x in (q, k, v)), a, b, 0, None) for a, b in ((0, 7), (7, 12))
        ]
        return torch.cat(parts, 1)

    together = attend([0, 1, 2, 3, 4])
    for image in range(5):
        assert torch.equal(attend([image])[0], together[image])


def test_bad_input():
    cache = native.StepCache(1, 4, 2, 8)
    x = torch.zeros(1, 2, 2, 8)
    with pytest.raises(InvalidInput, match="slots 0 to 3 to 5 are none of 4"):
        cache.attend(x, x, x, 3, 5, 0, None)
    with pytest.raises(InvalidInput, match=r"k must be float32 \[1, 2, 2, 8\]"):
        cache.attend(x, x[:, :1], x, 0, 2, 0, None)
    with pytest.raises(InvalidInput, match="mask must have 4 values"):
        cache.attend(x, x, x, 0, 2, 0, torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(InvalidInput, match="x must have 8 values a row, not 3"):
        native.PackedLinear(torch.zeros(2, 8), None)(torch.zeros(1, 3))
