"""From the numbers of K logistics to the losses of rows and their gradients, all in registers: [rows, K],
fp32.

log of a bin is log S(upper) + log S(-lower) + log(1 - exp(-u)), where u = upper - lower: it loses no digits.
The first bin lacks the second term and the last the first; neither has the third. Logistics past the last
have a share of exp(-inf).
"""

import triton
import triton.language as tl

from imagen_fast.kernels.pixel_cross_entropy_logits import LN_2, LOG2_E


@triton.jit
def exp(x):
    return tl.exp2(x * LOG2_E)


@triton.jit
def log(x):
    return tl.log2(x) * LN_2


@triton.jit
def log_sigmoid(x):
    """log S(x) and S(-x), its derivative."""
    small = exp(-tl.abs(x))  # at most 1
    away = 1.0 / (1.0 + small)
    return tl.minimum(x, 0.0) - log(1.0 + small), tl.where(x > 0, small * away, away)


@triton.jit
def log_width(u):
    """log(1 - exp(-u)) and its derivative. A series below a half, where 1 - exp(-u) would lose digits."""
    series = 1.0 - u / 8
    series = 1.0 - u / 7 * series
    series = 1.0 - u / 6 * series
    series = 1.0 - u / 5 * series
    series = 1.0 - u / 4 * series
    series = 1.0 - u / 3 * series
    series = u * (1.0 - u / 2 * series)
    rest = exp(-u)
    width = tl.where(u < 0.5, series, 1.0 - rest)
    return log(width), rest / width


@triton.jit
def log_softmax(x):
    """Over the logistics; and the softmax."""
    largest = tl.max(x, 1)
    p = exp(x - largest[:, None])
    total = tl.sum(p, 1)
    return x - (largest + log(total))[:, None], p / total[:, None]


@triton.jit
def mixture(share, mean, log_scale, target, counts, LEVELS: tl.constexpr, LEAST: tl.constexpr):
    """The loss of each row, 0 where it does not count, and its gradients by share, mean and log_scale."""
    half: tl.constexpr = 1.0 / (LEVELS - 1)
    first, last = (target == 0)[:, None], (target == LEVELS - 1)[:, None]
    from_mean = (2.0 * half * target.to(tl.float32) - 1.0)[:, None] - mean
    inverse = exp(-tl.maximum(log_scale, LEAST))
    upper, lower = (from_mean + half) * inverse, (from_mean - half) * inverse
    u = 2.0 * half * inverse
    below, d_below = log_sigmoid(upper)
    above, d_above = log_sigmoid(-lower)
    width, d_width = log_width(u)
    d_below, d_above = tl.where(last, 0.0, d_below), tl.where(first, 0.0, d_above)
    d_width = tl.where(first | last, 0.0, d_width)
    log_bin = tl.where(last, 0.0, below) + tl.where(first, 0.0, above) + tl.where(first | last, 0.0, width)

    log_share, p = log_softmax(share)
    joint = log_share + log_bin
    largest = tl.max(joint, 1)
    posterior = exp(joint - largest[:, None])
    total = tl.sum(posterior, 1)
    posterior = posterior / total[:, None]
    loss = tl.where(counts, -(largest + log(total)), 0.0)
    d_mean = posterior * (d_below - d_above) * inverse
    d_log_scale = posterior * (upper * d_below - lower * d_above + u * d_width)
    return loss, p - posterior, d_mean, tl.where(log_scale < LEAST, 0.0, d_log_scale)
