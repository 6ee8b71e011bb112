"""What a launch asks of a chip: bytes, operations, exponentials, and the least time they take.

The bytes are those of every image's tensors once, as if what a kernel reads twice, and what all images share,
came from L2. Operations and exponentials are those that the kernel makes, those made again included; tiles'
empty margins are not.
"""

from dataclasses import dataclass
from typing import Any

from imagen_fast.kernels.causal_pixel_window import Window, pairs
from imagen_fast.kernels.chips import Chip
from imagen_fast.kernels.launch import Launch

IMAGES = 256  # of which the work is stated: a GPU's batch


@dataclass(frozen=True)
class Work:
    """Of a launch on ``IMAGES`` images."""

    bytes: int
    operations: int
    exponentials: int


@dataclass(frozen=True)
class _Attention:
    """Of one head: products M x N x D, exponentials M x N, tensors M x D and N x D, floats a query."""

    products: int
    exponentials: int
    of_queries: int
    of_keys: int
    statistics: int = 0


_ATTENTION = {
    "attention_forward": _Attention(2, 1, of_queries=2, of_keys=2),
    "attention_forward_short": _Attention(2, 1, of_queries=2, of_keys=2),
    "attention_backward_short": _Attention(5, 1, of_queries=3, of_keys=4),
    # The logits and dp are made in either phase; the statistics go out and come back.
    "attention_backward_two_phase": _Attention(7, 2, of_queries=3, of_keys=4, statistics=4),
    # Two sweeps over the keys.
    "attention_backward_queries": _Attention(5, 2, of_queries=3, of_keys=2, statistics=2),
    "attention_backward_keys": _Attention(4, 1, of_queries=2, of_keys=4, statistics=2),
    "attention_backward_bias": _Attention(2, 1, of_queries=2, of_keys=2, statistics=2),
}
_CAUSAL = {
    "causal_attention_forward": _Attention(2, 1, of_queries=2, of_keys=2, statistics=2),
    # The output for delta, which goes out.
    "causal_attention_backward_queries": _Attention(3, 1, of_queries=4, of_keys=2, statistics=3),
    "causal_attention_backward_keys": _Attention(4, 1, of_queries=2, of_keys=4, statistics=3),
}
# Numbers read of each pair that is seen; what is written is a whole matrix. Exponentials a pair.
_SOFTMAX = {"causal_softmax_forward": (1, 1), "causal_softmax_backward": (2, 0)}
_SOFTMAX_OPERATIONS = 5  # a pair: largest, difference, sum, quotient, exponential; or two products and sums
# Tensors of a value a pixel read or written in the prediction's type, beside the image.
_PIXEL_MSE = {"pixel_mse_forward": 1, "pixel_mse_backward": 2}
_PIXEL_OPERATIONS = 10  # a value: mean, variance, normalising, square


# Exponentials of the kernels of likelihoods: a logit, or a logistic; and fp32 operations of each, about.
_LIKELIHOODS = {
    "cross_entropy_fused": (1, 10),
    "cross_entropy_rows": (1, 10),
    "logistic_mixture_fused": (6, 60),
    "logistic_mixture_rows": (6, 60),
}


def work(launch: Launch) -> Work | None:
    """None where only tables on the device say how many rows take part."""
    name, given = launch.kernel.fn.__name__, launch.arguments
    if name in _LIKELIHOODS:
        return _likelihood(name, given)
    if name == "gather_counted":
        return Work(2 * (given["end"] - given["first"]) * given["E"] * given["hidden"].dtype.itemsize, 0, 0)
    if name in _PIXEL_MSE:
        return _pixel_mse(_PIXEL_MSE[name], given)
    if name in _SOFTMAX:
        return _softmax(*_SOFTMAX[name], given)
    if name in _CAUSAL:
        return _causal(_CAUSAL[name], given)
    if given["q_spans"] is not None or given["k_spans"] is not None:
        return None
    return _attention(name, given)


def _attention(name: str, given: dict[str, Any]) -> Work:
    of = _ATTENTION[name]
    heads = IMAGES * given["heads"]
    m, n, d = given["q_rows"], given["k_rows"], given["D"]
    size = given["q"].dtype.itemsize
    statistics = of.statistics
    if name == "attention_backward_short" and given["statistics"] is not None:
        statistics = 2  # for the gradient of a bias
    if given.get("lse") is not None:
        statistics = 1
    moved = (of.of_queries * m + of.of_keys * n) * d * size + statistics * m * 4
    return Work(heads * moved, heads * of.products * 2 * m * n * d, heads * of.exponentials * m * n)


def _causal(of: _Attention, given: dict[str, Any]) -> Work:
    """Of the pairs that see each other; what is masked is a margin of a tile."""
    heads, d = IMAGES * given["heads"], given["D"]
    n = given["height"] * given["width"]
    seen = pairs(*(given[name] for name in Window._fields))
    moved = (of.of_queries + of.of_keys) * n * d * given["q"].dtype.itemsize + of.statistics * n * 4
    return Work(heads * moved, heads * of.products * 2 * seen * d, heads * of.exponentials * seen)


def _softmax(read: int, exponentials: int, given: dict[str, Any]) -> Work:
    """Of one matrix an image."""
    n = given["height"] * given["width"]
    seen = pairs(*(given[name] for name in Window._fields))
    moved = (read * seen + n * n) * given["p"].dtype.itemsize
    return Work(IMAGES * moved, IMAGES * _SOFTMAX_OPERATIONS * seen, IMAGES * exponentials * seen)


def _pixel_mse(tensors: int, given: dict[str, Any]) -> Work:
    """Of all rows: which of them count is on the device."""
    _, rows, values = given["prediction"].shape
    values *= IMAGES * rows
    size = tensors * given["prediction"].dtype.itemsize + given["image"].dtype.itemsize
    return Work(values * size, _PIXEL_OPERATIONS * values, 0)


def _likelihood(name: str, given: dict[str, Any]) -> Work:
    """Of the launch's own rows, all of which count; between the products of a chunk, of the chunk's rows."""
    exponentials, operations = _LIKELIHOODS[name]
    entries = given["V"] if "V" in given else given["K"]
    if given.get("norms") is not None:  # Gaussian targets are made again for the gradient
        exponentials += (given["d_losses"] is None) + _trains(given)
    aside = sum(given[x] is not None for x in ("losses", "d_losses")) * 4
    aside += given["target"].dtype.itemsize + (given["keep"] is not None)
    if name.endswith("rows"):
        rows, outputs = given["end"] - given["first"], given["logits"].shape[1]
        gradient = 0 if given["gradient"] is None else given["gradient"].dtype.itemsize
        moved = outputs * (4 + gradient)
        return Work(rows * (moved + aside), rows * entries * operations, rows * entries * exponentials)
    rows, width = given["rows"], given["E"]
    outputs = given["weight"].shape[0]
    aside += 4 * sum(given.get(x) is not None for x in ("log_z_made", "log_z_saved"))
    products = 1 + (given["d_hidden"] is not None) + (given["d_weight"] is not None)
    moved = width * given["hidden"].dtype.itemsize * (1 + (given["d_hidden"] is not None))
    return Work(rows * (moved + aside), 2 * products * rows * outputs * width, rows * entries * exponentials)


def _trains(given: dict[str, Any]) -> bool:
    return any(given.get(x) is not None for x in ("gradient", "d_hidden", "d_weight"))


def least_time(work: Work, chip: Chip, half: bool) -> tuple[float, str]:
    """Seconds that no kernel can beat on this chip, and what sets them: the largest of three times.

    Args:
        half: products are on tensor cores.
    """
    products = {"matrix": chip.half} if half else {"fp32": chip.single}
    return least_time_at(work, {"memory": chip.bandwidth, **products, "exp": chip.exponentials})


def least_time_at(work: Work, rates: dict[str, float]) -> tuple[float, str]:
    """As `least_time`, at rates a second, by name: of bytes, of operations, of exponentials."""
    amounts = (work.bytes, work.operations, work.exponentials)
    times = {name: done / rate for (name, rate), done in zip(rates.items(), amounts, strict=True)}
    slowest = max(times, key=lambda name: times[name])
    return times[slowest], slowest
