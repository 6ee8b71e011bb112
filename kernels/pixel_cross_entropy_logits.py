"""From the logits of rows to their losses and gradients, all in registers: ``[levels, rows]``, fp32.

Levels are the first axis, so that a sum over them stays within a few threads, and the gradient lies as the
product that makes the weight's wants its operand. Logits of levels past the last are -inf. Options are None
where they are off, and then cost nothing: ``smoothing``; ``z_loss``; ``sharpness`` = log2(e) / (2 sigma^2)
with ``norms`` [V], one over the sum of exp2(-sharpness (v - target)^2), which depends on the target alone.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softmax(z, log_z):
    """p and a factor a row whose product is the softmax, and log Z; ``log_z`` is None where not known."""
    if log_z is None:
        largest = tl.max(z, 0)
        p = tl.exp2(z * LOG2_E - (largest * LOG2_E)[None, :])
        total = tl.sum(p, 0)
        factor = 1.0 / total
        made = largest + LN_2 * tl.log2(total)
    else:
        p = tl.exp2(z * LOG2_E - (log_z * LOG2_E)[None, :])
        factor = tl.full(log_z.shape, 1.0, tl.float32)
        made = log_z
    return p, factor, made


@triton.jit
def ordinal(level, target, norms, sharpness, V: tl.constexpr):
    """Gaussian targets [levels, rows]; zeros where the target is no level."""
    away = (level[:, None] - target[None, :]).to(tl.float32)
    norm = tl.load(norms + target, mask=(target >= 0) & (target < V), other=0.0)
    return tl.exp2(away * away * -sharpness) * norm[None, :]


@triton.jit
def wanted_logit(z, level, target, smoothing, sharpness, norms, V: tl.constexpr):
    """The mean of each row's logits under its targets. Taken before the softmax, it leaves no logit alive."""
    finite = z
    if (sharpness is not None or smoothing is not None) and z.shape[0] != V:
        finite = tl.where((level < V)[:, None], z, 0.0)
    if sharpness is None:
        wanted = tl.sum(tl.where(level[:, None] == target[None, :], z, 0.0), 0)
    else:
        wanted = tl.sum(ordinal(level, target, norms, sharpness, V) * finite, 0)
    if smoothing is not None:
        wanted += smoothing * (tl.sum(finite, 0) / V - wanted)
    return wanted


@triton.jit
def loss_of(log_z, wanted, counts, z_loss):
    loss = log_z - wanted
    if z_loss is not None:
        loss += z_loss * log_z * log_z
    return tl.where(counts, loss, 0.0)


@triton.jit
def logit_gradient(
    p, factor, log_z, level, target, d_loss, smoothing, z_loss, sharpness, norms, V: tl.constexpr
):
    """d_loss times the gradient of each row's loss; ``d_loss`` is 0 where it does not count."""
    factor = factor * d_loss
    if z_loss is not None:
        factor += factor * (2.0 * z_loss * log_z)
    if smoothing is not None:
        spread = d_loss * smoothing / V
        d_loss -= d_loss * smoothing
    g = p * factor[None, :]
    if sharpness is None:
        g = tl.where(level[:, None] == target[None, :], g - d_loss[None, :], g)
    else:
        g -= ordinal(level, target, norms, sharpness, V) * d_loss[None, :]
    if smoothing is not None:
        g -= spread[None, :]
    return g
