"""The mathematics of every operation, in plain PyTorch: slow, obvious, and the definition.

Each function takes what its namesake in `functional` was given, already checked. Gradients are autograd's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops.contexts import Rows, Visible, Window
from imagen_fast.ops.patches import chosen_patches, patchify
from imagen_fast.ops.rotary import Rotary, turn


def positions(rows: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row numbers [B or 1, L] and which of them exist, from the tables of a context."""
    i = torch.arange(rows.longest, device=device)[None]
    if rows.spans is None:
        return i, torch.ones_like(i, dtype=torch.bool)
    start, count = rows.spans[:, :1].long(), rows.spans[:, 1:]
    exists = i < count
    row = i if rows.index is None else rows.index[:, : rows.longest].long()
    return torch.where(exists, start + row, 0), exists


def places(rows: Rows, device: torch.device) -> Tensor:
    """Where on the grid the listed rows lie, [B or 1, L]; 0 for rows that do not exist."""
    row, _ = positions(rows, device)
    if rows.places is None or rows.places.shape[0] == 0:
        return row
    return rows.places.long()[row]


class _Lookup(torch.autograd.Function):
    """bias [H, P, P'] at the places [B, M] of queries and [B, N] of keys: [B, H, M, N].

    Its gradient is two products with one-hot matrices, which add in one order; a scatter would not.
    """

    @staticmethod
    def forward(ctx, bias: Tensor, q_places: Tensor, k_places: Tensor) -> Tensor:
        ctx.save_for_backward(q_places, k_places)
        ctx.grid = bias.shape[1:]
        return bias[:, q_places[:, :, None], k_places[:, None, :]].transpose(0, 1)

    @staticmethod
    def backward(ctx, d_scores: Tensor) -> tuple[Tensor, None, None]:
        wide = torch.promote_types(d_scores.dtype, torch.float32)
        q_hot, k_hot = (
            torch.nn.functional.one_hot(places, size).to(wide)
            for places, size in zip(ctx.saved_tensors, ctx.grid, strict=True)
        )
        by_query = d_scores.to(wide) @ k_hot[:, None]  # [B, H, M, P']
        d_bias = torch.einsum("bmp,bhmq->hpq", q_hot.expand(len(d_scores), -1, -1), by_query)
        return d_bias.to(d_scores.dtype), None, None


def take(x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """The listed rows of `x` ([B, N, H, D] or packed [T, H, D]) as [B, L, H, D], and which exist [B or 1, L].

    Rows that do not exist are zero, whatever `x` holds there.
    """
    row, exists = positions(rows, x.device)
    if rows.spans is None:
        return x[:, : rows.longest], exists
    if x.dim() == 3:
        # A packed tensor can be empty: a row of zeros keeps position 0 valid.
        taken = torch.cat([x, x.new_zeros(1, *x.shape[1:])])[row]
    elif rows.index is None:
        taken = x[:, : rows.longest]
    else:
        taken = x.gather(1, row[..., None, None].expand(-1, -1, *x.shape[2:]))
    return torch.where(exists[..., None, None], taken, 0), exists


def put(values: Tensor, rows: Rows, like: Tensor) -> Tensor:
    """The opposite of `take`: `values` [B, L, H, D] at their rows of a tensor of zeros shaped like `like`."""
    if rows.spans is None and values.shape == like.shape:
        return values
    row, exists = positions(rows, values.device)
    batch, total = values.shape[0], like.shape[:-2].numel()
    if like.dim() == 4:
        row = row + like.shape[1] * torch.arange(batch, device=values.device)[:, None]
    # One row more takes those that do not exist: their number is known on the device only.
    row = torch.where(exists, row, total).expand(batch, -1)
    out = torch.zeros((total + 1, *like.shape[-2:]), dtype=values.dtype, device=values.device)
    return out.index_copy(0, row.flatten(), values.flatten(0, 1))[:total].view(like.shape)


def masked_patch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Visible,
    scale: float,
    rotary: Rotary | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(scale * q k^T + bias) v over the key rows of the query's image (Vaswani et al. 2017, eq. 1).

    Equal to `scaled_dot_product_attention` with the boolean mask that the context stands for, except that
    a row with nothing to attend to gives zeros, and rows that nobody asked for are zeros. With `rotary` q
    and k are turned first; `bias` is looked up at the places of the query and the key.
    """
    if rotary is not None:
        q, k = turn(q, rotary, context.queries.places), turn(k, rotary, context.keys.places)
    queries, _ = take(q, context.queries)  # [B, M, H, D]
    keys, seen = take(k, context.keys)  # [B, N, H, D], [B, N]
    values, _ = take(v, context.keys)
    scores = torch.einsum("bmhd,bnhd->bhmn", queries, keys) * scale
    if bias is not None:
        q_places, k_places = places(context.queries, q.device), places(context.keys, k.device)
        scores = scores + _Lookup.apply(bias, q_places, k_places)
    hidden = ~seen[:, None, None, :]
    # The lowest finite score, not -inf, and a second fill: a row without keys gives zeros, not NaN.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    probability = scores.softmax(-1).masked_fill(hidden, 0.0).to(values.dtype)
    out = torch.einsum("bhmn,bnhd->bmhd", probability, values)
    return put(out, context.queries, q)


def masked_pixel_mse(
    prediction: Tensor, image: Tensor, hidden: Tensor | None, normalise: bool, eps: float
) -> Tensor:
    """Mean over the hidden patches of the mean squared error of their pixels (He et al. 2021, section 3).

    With `normalise` the target of a patch is (x - mean) / sqrt(variance + eps), over all its values and
    with the unbiased variance.
    """
    channels = image.shape[1]
    patch = round((prediction.shape[-1] / channels) ** 0.5)
    if hidden is None or hidden.dtype == torch.bool:
        target = patchify(image, patch)
    else:
        target = chosen_patches(image, patch, hidden)
    # Statistics and the sum are never taken in half precision.
    target = target.to(torch.promote_types(prediction.dtype, torch.float32))
    if normalise:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + eps).sqrt()
    if hidden is None or hidden.dtype != torch.bool:
        counted = torch.ones(prediction.shape[:2], dtype=torch.bool, device=prediction.device)
    else:
        counted = hidden
    # What a row that does not count holds, NaN included, reaches neither the loss nor a gradient.
    error = torch.where(counted[..., None], _wide(prediction) - target, 0).square().mean(-1)  # [B, M]
    return error.sum() / counted.sum().clamp(min=1)


def causal_pixel_attention(q: Tensor, k: Tensor, v: Tensor, window: Window, scale: float) -> Tensor:
    """softmax(scale * q k^T) v over the keys that the window lets each query see.

    Equal to `scaled_dot_product_attention` with the boolean mask `window.visible()`.
    """
    scores = torch.einsum("bmhd,bnhd->bhmn", q, k) * scale
    return torch.einsum("bhmn,bnhd->bmhd", causal_pixel_softmax(scores, window), v)


def causal_pixel_softmax(scores: Tensor, window: Window) -> Tensor:
    """Softmax of [..., N, N] over the visible keys; zero for the others."""
    hidden = ~window.visible(scores.device)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1)


def pixel_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    sigma: float,
) -> Tensor:
    """The loss of each row [G, M] of `hidden` [G, M, E]; 0 where it does not count.

    -sum_v t[v] (z[v] - log Z) + z_loss (log Z)^2, with the targets t that `soft_targets` gives.
    """
    hidden, target, counts = _counted(hidden, target, keep, ignore_index)
    logits = _wide(torch.nn.functional.linear(hidden, weight, bias))
    log_z = logits.logsumexp(-1)
    wanted = soft_targets(target, len(weight), label_smoothing, sigma, logits.dtype)
    loss = log_z - (wanted * logits).sum(-1) + z_loss * log_z.square()
    return torch.where(counts, loss, 0)


def soft_targets(
    target: Tensor, levels: int, label_smoothing: float, sigma: float, dtype: torch.dtype
) -> Tensor:
    """Distributions [..., V]: one at the target, or a Gaussian around it, then smoothed."""
    level = torch.arange(levels, device=target.device)
    away = (level - target[..., None]).to(dtype)
    hard = (away == 0).to(dtype)
    wanted = (-(away**2) / (2 * sigma**2)).softmax(-1) if sigma > 0 else hard
    return (1 - label_smoothing) * wanted + label_smoothing / levels


def pixel_logistic_mixture(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    keep: Tensor | None,
    ignore_index: int,
    levels: int,
) -> Tensor:
    """The loss of each row [G, M] of `hidden` [G, M, E]; 0 where it does not count."""
    hidden, target, counts = _counted(hidden, target, keep, ignore_index)
    mixture = _wide(torch.nn.functional.linear(hidden, weight, bias))
    return torch.where(counts, -logistic_mixture(mixture, target, levels), 0)


def logistic_mixture(mixture: Tensor, target: Tensor, levels: int) -> Tensor:
    """log p(target) [...] of discretised mixtures of logistics [..., 3 K].

    A bin's probability S(a) - S(b), a > b, is taken as S(a) S(-b) (1 - exp(b - a)), which loses no digits.
    """
    share, mean, log_scale = mixture.unflatten(-1, (3, -1)).unbind(-2)  # [..., K]
    inverse = (-log_scale.clamp(min=LEAST_LOG_SCALE)).exp()
    half = 1 / (levels - 1)
    x = 2 * half * target.to(mean.dtype)[..., None] - 1
    upper, lower = (x + half - mean) * inverse, (x - half - mean) * inverse
    below = -torch.nn.functional.softplus(-upper)  # log S(upper)
    above = -torch.nn.functional.softplus(lower)  # log S(-lower)
    inside = below + above + torch.log(-torch.expm1(-2 * half * inverse))
    first, last = (target == 0)[..., None], (target == levels - 1)[..., None]
    log_bin = torch.where(first, below, torch.where(last, above, inside))
    return (share.log_softmax(-1) + log_bin).logsumexp(-1)


LEAST_LOG_SCALE = -7.0
"""Of a logistic: e^-7 of half the line is an eighth of a level of 256 (as in PixelCNN++)."""


def _wide(x: Tensor) -> Tensor:
    """Logarithms and sums are never taken in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def counting(target: Tensor, keep: Tensor | None, ignore_index: int) -> Tensor:
    """Which targets count, a bool each."""
    # PyTorch would wrap a value that the type does not have: 156 of a byte equals -100.
    counts = target != ignore_index if has_value(target.dtype, ignore_index) else torch.ones_like(target) > 0
    return counts if keep is None else counts & keep


def has_value(dtype: torch.dtype, value: int) -> bool:
    return torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max


def _counted(
    hidden: Tensor, target: Tensor, keep: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and integer targets, harmless where they do not count, and which do [G, M]."""
    counts, target = counting(target, keep, ignore_index), target.long()
    return torch.where(counts[..., None], hidden, 0), torch.where(counts, target, 0), counts
