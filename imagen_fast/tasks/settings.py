"""What a user can choose, said once: the command line and the Python interface share these classes.

Nothing here imports torch. A default of None means that the value follows from the data or the model; the
help says how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from imagen_fast.errors import InvalidInput

T = TypeVar("T", bound="RunSettings")

OBJECTIVES = ("masked", "causal", "joint")
# How the name of a model of timm begins, and what such a run is called beside the objectives.
TIMM_PREFIX, OF_TIMM = "timm/", "timm"


def option(
    default: Any,
    help: str,
    *,
    name: str | None = None,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    free: bool = False,
    of: tuple[str, ...] = (*OBJECTIVES, OF_TIMM),
) -> Any:
    """A field of a settings class.

    Args:
        name: the option's name where it is not the field's with hyphens.
        least, above, below: bounds, checked for every value that is not None.
        free: whether it may change when a run is resumed, since no weight depends on it.
        of: the pretraining objectives that it has a meaning for; `OF_TIMM` stands for the masked one of a
            model of timm.
    """
    bounds = {"least": least, "above": above, "below": below}
    return field(
        default=default, metadata={"help": help, "name": name, "free": free, "bounds": bounds, "of": of}
    )


_HOLDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("at least", lambda value, bound: value >= bound),
    "above": ("above", lambda value, bound: value > bound),
    "below": ("below", lambda value, bound: value < bound),
}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every training run has.

    Raises:
        InvalidInput: a number out of range, or both epochs and steps.
    """

    data: str | None = option(
        None,
        "A folder of JPEG, PNG or WebP images; WebDataset's tar shards, as 'train-{000..127}.tar' or a glob; "
        "the folder of a saved Hugging Face dataset; or digits, or photos.",
    )
    out: str | None = option(None, "The run's folder.  [default: runs/DATA-MODEL]", free=True)
    epochs: float | None = option(None, "Passes over the data.  [default: 100]", above=0)
    steps: int | None = option(None, "Updates in all, instead of --epochs.", least=1)
    batch_size: int | None = option(None, "Images a step.  [default: 256 for digits, else 64]", least=1)
    weight_decay: float = option(0.05, "Decoupled weight decay of AdamW.", least=0)
    warmup: float = option(0.05, "Share of the steps in which the rate rises to its peak.", least=0, below=1)
    clip: float = option(1.0, "Largest norm of the gradient; 0 leaves it as it is.", least=0)
    precision: str = option("auto", "auto (bf16 where the processor is good at it), bf16 or fp32.")
    compile: bool = option(False, "Compile the model with torch.compile.", name="--compile")
    device: str | None = option(None, "cpu or cuda.  [default: the first GPU, else the CPU]")
    threads: int | None = option(
        None, "Threads that decode images.  [default: every processor]", least=1, free=True
    )
    seed: int = option(0, "Of the weights, the order, the augmentation and the masks.", least=0)
    checkpoint_every: int = option(1000, "Steps between checkpoints.", least=1, free=True)
    log_every: int = option(10, "Steps between log lines.", least=1, free=True)
    tensorboard: bool | None = option(
        None,
        "Write a TensorBoard log.  [default: where the package is installed]",
        name="--tensorboard/--no-tensorboard",
        free=True,
    )
    wandb: bool = option(False, "Log to Weights & Biases.", name="--wandb", free=True)
    resume: bool = option(False, "Go on with the run in --out, exactly.", name="--resume", free=True)
    quiet: bool = option(False, "No progress bar, no messages.", name="--quiet", free=True)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            for kind, bound in f.metadata["bounds"].items():
                words, holds = _HOLDS[kind]
                # A comparison with NaN is false, so NaN is refused too.
                if value is not None and bound is not None and not holds(value, bound):
                    raise InvalidInput(f"{f.name.replace('_', ' ')} must be {words} {bound}, not {value}")
        if self.epochs is not None and self.steps is not None:
            raise InvalidInput(f"give epochs ({self.epochs:g}) or steps ({self.steps}), not both")

    def to_dict(self) -> dict[str, Any]:
        """All that a run's folder remembers: everything but where it is and that it was resumed."""
        return {name: value for name, value in asdict(self).items() if name not in ("out", "resume")}

    @classmethod
    def fixed(cls) -> tuple[str, ...]:
        """The names of the settings that a run keeps when it is resumed."""
        return tuple(f.name for f in fields(cls) if not f.metadata["free"])


_OF_PATCHES = ("masked", "joint")
_OF_HIDING = (*_OF_PATCHES, OF_TIMM)


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(RunSettings):
    """A pretraining run; the defaults of the masked objective are those of He et al. 2021."""

    objective: str = option(
        "masked",
        "masked: fill in hidden patches; causal: predict each pixel from those before it; joint: both, with "
        "one backbone.",
    )
    model: str | None = option(
        None,
        "nano, tiny, small, base, large or huge; or timm/NAME, a model of timm that makes a map of features, "
        "as timm/resnet50.  [default: for digits nano, for photos tiny, else small]",
    )
    start: str | None = option(
        None,
        "What the backbone starts from: a file of weights under timm's names; of a vision transformer also a "
        "run, or a folder of transformers' ViT or ViTMAE; of timm/NAME also pretrained, timm's own.  "
        "[default: new weights]",
        of=_OF_HIDING,
    )
    image_size: int | None = option(
        None, "Side of the square images, in pixels.  [default: digits 8, photos 64, else 224]", least=1
    )
    patch_size: int | None = option(
        None,
        "Side of a patch, in pixels.  [default: 2 for digits, 8 for photos, else 16; causal: 1, 4, 16; "
        "timm/NAME: 32, at most a quarter of the image]",
        least=1,
    )
    mask_ratio: float | None = option(
        None, "Share of the patches that are hidden.  [default: 0.75; timm/NAME: 0.6]", of=_OF_HIDING
    )
    mask: str = option("random", "random patches, or blockwise rectangles.", of=_OF_HIDING)
    loss: str = option(
        "mse",
        "mse of pixels normalised per patch, or categorical: -mean log p of a pixel.",
        of=_OF_PATCHES,
    )
    decoder: str = option(
        "full", "full (exactly MAE), or cross: queries attend to visible tokens only.", of=_OF_PATCHES
    )
    decoder_dim: int | None = option(
        None, "Width of the decoder.  [default: by model]", least=1, of=_OF_PATCHES
    )
    decoder_depth: int | None = option(
        None, "Blocks of the decoder.  [default: by model]", least=1, of=_OF_PATCHES
    )
    decoder_heads: int | None = option(
        None, "Attention heads of the decoder.  [default: by model]", least=1, of=_OF_PATCHES
    )
    predict: float | None = option(
        None,
        "Share of the hidden patches that are predicted.  [default: 1 for full, 1/3 for cross]",
        of=_OF_PATCHES,
    )
    masked_weight: float = option(1.0, "Weight of the masked loss in the joint one.", above=0, of=("joint",))
    causal_weight: float = option(1.0, "Weight of the causal loss in the joint one.", above=0, of=("joint",))
    context: str = option(
        "raster",
        "Which pixels a causal prediction depends on: raster (all before it, row by row), quadrant (those "
        "above and to the left), or neighbourhood (of the quadrant, within --radius).",
        of=("causal",),
    )
    radius: int | None = option(
        None,
        "Of the neighbourhood, in tokens; 1: the pixels to the left, above and between.  [default: 3]",
        least=1,
        of=("causal",),
    )
    head: str = option(
        "categorical",
        "Of causal predictions: categorical over the levels, or a mixture of discretised logistics.",
        of=("causal",),
    )
    mixtures: int = option(10, "Logistics of the mixture.", least=1, of=("causal",))
    palette: int | None = option(
        None, "Predict one of so many colours, found by k-means, and not channels.", least=2, of=("causal",)
    )
    levels: int | None = option(
        None,
        "Levels of a pixel, where they are predicted.  [default: the data's]",
        least=2,
        below=257,
        of=OBJECTIVES,
    )
    augment: bool | None = option(
        None,
        "Random views that suit the data: crops and flips of photographs, shifts of digits.  "
        "[default: yes, but not for causal, whose likelihoods are of the images as they are]",
        name="--augment/--no-augment",
    )
    lr: float | None = option(
        None, "Peak learning rate.  [default: 1.5e-4 x batch / 256, for causal 1e-3]", above=0
    )
    holdout: float | None = option(
        None,
        "Share of each class that pretraining never sees, kept for the figures.  [default: 0; causal: 0.1]",
        least=0,
        below=1,
    )
    evaluate: bool = option(
        True,
        "At the end, bits per dimension of a causal model, and k-NN and linear-probe accuracy where there "
        "are labels.",
        name="--eval/--no-eval",
        free=True,
    )

    @property
    def timm_model(self) -> str | None:
        """timm's name, where the model is one of timm's."""
        model = self.model or ""
        return model.removeprefix(TIMM_PREFIX) if model.startswith(TIMM_PREFIX) else None

    def refuse_foreign(self) -> None:
        """Raises InvalidInput where an option was given that the objective has no use for."""
        timm = self.timm_model is not None
        if timm and self.objective != "masked":
            raise InvalidInput(f"{self.model} learns by the objective masked only, not by {self.objective}")
        kind = OF_TIMM if timm else self.objective
        for f in fields(self):
            if kind not in f.metadata["of"] and getattr(self, f.name) != f.default:
                objectives = " and ".join(o for o in f.metadata["of"] if o != OF_TIMM)
                whose = f"the objective {objectives}" if objectives else "models of timm"
                asked = self.model if timm else kind
                raise InvalidInput(f"{f.name.replace('_', ' ')} is an option of {whose}, not of {asked}")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(RunSettings):
    """A classification run, from a pretrained backbone or from scratch."""

    data: str | None = option(
        None,
        "A folder with a subfolder a class, or other data with labels, as for pretrain.  "
        "[default: that of --from]",
    )
    batch_size: int | None = option(None, "Images a step.  [default: 64]", least=1)
    from_run: str | None = option(
        None, "The pretraining run whose backbone is taken; none trains from scratch.", name="--from"
    )
    model: str | None = option(None, "From scratch only: nano to huge.  [default: as for pretrain]")
    image_size: int | None = option(
        None, "Side of the square images, in pixels.  [default: the backbone's]", least=1
    )
    patch_size: int | None = option(
        None, "From scratch only: side of a patch.  [default: as for pretrain]", least=1
    )
    mode: str = option("full", "full: every weight is trained; head: the classifier alone.")
    lr: float | None = option(
        None, "Peak learning rate.  [default: 1e-3 x batch / 256, for the head alone 5e-3]", above=0
    )
    layer_decay: float | None = option(
        None,
        "Factor of the learning rate from one block to the one before.  "
        "[default: 0.75 for a pretrained backbone of 12 and more blocks, else 1]",
        above=0,
    )
    augment: bool | None = option(
        None,
        "Random views that suit the data: crops and flips of photographs, shifts of digits.  "
        "[default: yes, but for the head alone]",
        name="--augment/--no-augment",
    )
    drop_path: float = option(0.0, "Stochastic depth of the last block.", least=0, below=1)
    label_smoothing: float = option(0.0, "Share of the target spread over all classes.", least=0, below=1)
    labels_per_class: int | None = option(None, "Train on so many images of each class only.", least=1)
    val: str | None = option(None, "Data with the same classes, to validate on.  [default: a hold-out]")
    holdout: float = option(0.2, "Share of each class that is held out for validation.", above=0, below=1)
    eval_every: int = option(1, "Epochs between evaluations.", least=1)
