"""A classifier from a pretrained backbone, or from scratch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from imagen_fast.data import Augmentation, Loader, NoLabels, Source, few_per_class, open_source, split
from imagen_fast.data.augment import fixed_view
from imagen_fast.errors import InvalidInput, MissingPackage
from imagen_fast.models import (
    Backbone,
    BackboneConfig,
    ClassifierModel,
    TimmBackbone,
    TimmConfig,
    ViTConfig,
    build_classifier,
    vit_config,
)
from imagen_fast.models.positions import resize_positions
from imagen_fast.objectives import ClassificationObjective
from imagen_fast.tasks.backbone import load_backbone
from imagen_fast.tasks.classifier import Classifier, ClassifierConfig, best_so_far, save_best
from imagen_fast.tasks.pictures import draw_confusion, draw_curves
from imagen_fast.tasks.probe import SPLIT_SEED
from imagen_fast.tasks.session import (
    FOLDER_IMAGE_SIZE,
    FOLDER_PRESET,
    PRESETS,
    begin,
    default_folder,
    failed_images,
    fit_config,
    interruptible,
    listing_failures,
    open_data,
    open_logs,
    resolved,
    say,
    total_steps,
)
from imagen_fast.tasks.settings import FinetuneSettings
from imagen_fast.train import FitResult, MasterAdamW, Run, choose_device, fit, load_into, working_type
from imagen_fast.train.checkpoint import write_atomically
from imagen_fast.train.logs import Log, read_log

KIND = "classification"
BATCH_SIZE = 64
# He et al. 2021, table 9: for a batch of 256. The head alone is a convex problem, and takes larger steps.
BASE_LR, HEAD_LR = 1e-3, 5e-3
BETAS = (0.9, 0.999)
LAYER_DECAY, DEEP = 0.75, 12
SCRATCH = "none"
# Of the features that the last norm begins by standardising: from so many images, never below this deviation.
MOST_STANDARDISED, LEAST_DEVIATION = 512, 1e-2


@dataclass
class FinetuneResult:
    """What a run left.

    Attributes:
        folder: of the run: `best.safetensors`, `classifier.json`, `report.txt`, pictures, logs, checkpoints.
        fitted: steps of this call, seconds, images/s, share of time that waited for data, last loss.
        accuracy: of the best evaluation, 0..1. It was chosen on the images it is told of. Every evaluation is
            of the float32 weights, as prediction and export take them, whatever the type of the training.
        best_step: when that was.
        last_accuracy: of the weights at the end.
        report: precision, recall and F1 of each class, as text.
        failed: (path, reason) of the images that could not be read.
        notes: what was left out, and why.
    """

    folder: Path
    fitted: FitResult
    accuracy: float
    best_step: int
    last_accuracy: float
    report: str = ""
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A run before it starts: settings with nothing left open, and the parts they stand for."""

    settings: FinetuneSettings
    train: Source
    val: Source
    backbone: BackboneConfig
    pretrained: tuple[Backbone, tuple[float, ...], tuple[float, ...]] | None
    device: torch.device
    dtype: torch.dtype

    def loader(
        self, source: Source, augment: Augmentation | None = None, device: torch.device | str = "cpu"
    ) -> Loader:
        s = self.settings
        assert s.batch_size is not None
        side, channels = self.backbone.image_size[0], self.backbone.channels
        return Loader(
            source,
            s.batch_size,
            side,
            augment,
            s.seed,
            threads=s.threads,
            channels=channels,
            device=device,
        )


def plan(settings: FinetuneSettings) -> Plan:
    """Open the data and the backbone and fill in every setting that follows from them.

    Raises:
        InvalidInput, DataError, CheckpointError: a setting that cannot be; see the message.
    """
    if settings.mode not in ("full", "head"):
        raise InvalidInput(f"mode must be 'full' or 'head', not {settings.mode!r}")
    origin = None if settings.from_run in (None, SCRATCH) else settings.from_run
    if origin is None and settings.mode == "head":
        raise InvalidInput(
            "mode 'head' trains the classifier alone; give --from, a run with a pretrained backbone"
        )
    pretrained = None if origin is None else load_backbone(origin)
    if pretrained is not None and (settings.model is not None or settings.patch_size is not None):
        raise InvalidInput(
            f"model and patch size are those of {origin}; give them to train from scratch only"
        )
    wanted = settings.data
    if wanted is None and origin is not None:
        wanted = Run.open(origin).config.get("settings", {}).get("data")
    known = None if pretrained is None else pretrained[0].config
    data, source = open_data(wanted, settings.image_size or (known.image_size[0] if known else None))
    train, val = _parts(settings, source)
    batch, model, patch = PRESETS.get(data, FOLDER_PRESET)
    model = settings.model or model
    side = settings.image_size
    if known is None:
        side = side or source.native_size or FOLDER_IMAGE_SIZE
        known = vit_config(model, patch_size=settings.patch_size or patch, channels=source.channels)
    else:
        side = side or known.image_size[0]
    backbone = replace(known, image_size=(side, side))
    if isinstance(backbone, ViTConfig):
        backbone = replace(backbone, pool="avg")
    batch = settings.batch_size or BATCH_SIZE
    layer_decay = settings.layer_decay
    if layer_decay is None:
        deep = not isinstance(backbone, TimmConfig) and backbone.depth >= DEEP
        layer_decay = LAYER_DECAY if pretrained is not None and deep else 1.0
    elif isinstance(backbone, TimmConfig) and layer_decay != 1:
        raise InvalidInput(f"a layer decay is of transformers of ours, not of timm's {backbone.timm}")
    device = choose_device(settings.device)
    dtype = working_type(settings.precision, device)
    name = f"{Path(origin).name}-finetune" if origin is not None else f"{model}-scratch"
    settings = resolved(
        settings,
        data=data,
        from_run=SCRATCH if origin is None else str(Path(origin).resolve()),
        out=settings.out or default_folder(data, name),
        model=model if pretrained is None else None,
        patch_size=backbone.patch_size if isinstance(backbone, ViTConfig) and pretrained is None else None,
        steps=total_steps(settings, len(train), batch),
        batch_size=batch,
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        device=str(device),
        image_size=side,
        lr=settings.lr or (HEAD_LR if settings.mode == "head" else BASE_LR * batch / 256),
        layer_decay=layer_decay,
        augment=settings.mode == "full" if settings.augment is None else settings.augment,
    )
    return Plan(settings, train, val, backbone, pretrained, device, dtype)


def finetune(settings: FinetuneSettings) -> FinetuneResult:
    """Train a classifier, evaluate it every epoch, and keep the best.

    The backbone's patch tokens are averaged, normalised and classified, as MAE fine-tunes (He et al. 2021,
    appendix A.1). Sets PyTorch's global seed. With `settings.resume` the run in `settings.out` goes on
    exactly.

    Raises:
        ImagenFastError: a setting, the data, the backbone or the run cannot be taken; the message is one
            sentence.
    """
    p = plan(settings)
    s = p.settings
    assert s.lr is not None
    torch.manual_seed(s.seed)
    with (
        p.loader(p.train, None if s.augment else Augmentation(), p.device) as loader,
        p.loader(p.val, Augmentation()) as held,
    ):
        config = _describe(p, loader)
        model = _model(p, len(config.classes))
        objective = ClassificationObjective(model, config.mean, config.std, s.label_smoothing)
        some = np.linspace(0, len(p.train) - 1, min(len(p.train), MOST_STANDARDISED)).astype(np.int64)
        with p.loader(p.train.subset(some), Augmentation()) as few:
            _standardise(model, objective.normalize, few)
        facts = {"images": len(p.train), "heldout_images": len(p.val), "classes": config.classes}
        run, resume = begin(s, KIND, facts)
        config.save(run.folder)
        if resume is None:
            # Of a run that ended before its first checkpoint.
            (run.folder / "best.safetensors").unlink(missing_ok=True)
        say(
            s,
            f"training a classifier of {len(config.classes)} classes on {len(p.train)} images, evaluating on "
            f"{len(p.val)}; {'from scratch' if p.pretrained is None else f'backbone of {s.from_run}'}, "
            f"{s.mode}, {s.device} {s.precision}, {s.steps} steps",
        )
        with (
            interruptible(run, "finetune"),
            listing_failures(run, loader, held),
            open_logs(run, s, resume) as logs,
        ):
            # A copy: a new model would draw random numbers.
            wide = deepcopy(objective.model).to(p.device).eval()
            watch = _Evaluation(p, wide, objective.normalize, loader, held, run, logs)
            fitted = fit(
                objective,
                loader,
                fit_config(s, s.lr, BETAS),
                device=p.device,
                dtype=p.dtype,
                run=run,
                resume=resume,
                logs=logs,
                lr_scale=_lr_scale(p),
                after_step=watch,
                title="fine-tuning",
                quiet=s.quiet,
            )
            return _finish(p, run, fitted, held)


def layer_scale(depth: int, decay: float) -> Callable[[str], float]:
    """Layer-wise decay of the learning rate (Clark et al. 2020, Bao et al. 2021), by parameter name.

    1 for the head, `decay` for the last block, one factor more for each block before it, and another for the
    embedding.
    """

    def scale(name: str) -> float:
        parts = name.split(".")
        if "blocks" in parts:
            layer = int(parts[parts.index("blocks") + 1]) + 1
        elif any(part in ("patch_embed", "cls_token", "pos_embed", "embed") for part in parts):
            layer = 0
        else:
            layer = depth + 1
        return decay ** (depth + 1 - layer)

    return scale


def _lr_scale(p: Plan) -> Callable[[str], float] | None:
    if isinstance(p.backbone, TimmConfig):
        return None
    assert p.settings.layer_decay is not None
    return layer_scale(p.backbone.depth, p.settings.layer_decay)


@dataclass
class _Evaluation:
    """What happens at the end of an epoch: evaluate, tell, log, and keep the weights if they are the best.

    Evaluated are the float32 weights, the very ones that are kept: in bf16 the working ones differ.
    """

    plan: Plan
    model: ClassifierModel  # takes the weights in turn
    normalize: nn.Module
    loader: Loader
    held: Loader
    run: Run
    logs: list[Log]

    def __call__(self, step: int, optimizer: MasterAdamW) -> None:
        s = self.plan.settings
        assert s.steps is not None
        whole, rest = divmod(step, self.loader.steps_per_epoch)
        if step != s.steps and (rest or whole % s.eval_every):
            return
        epoch = step / self.loader.steps_per_epoch
        weights = {
            name.removeprefix("model."): value
            for name, value in optimizer.weights().items()
            if name.startswith("model.")
        }
        self.model.load_state_dict(weights)
        accuracy = self._accuracy()
        for log in self.logs:
            log.write(step, {"val_accuracy": accuracy, "epoch": epoch})
        best = accuracy > best_so_far(self.run.folder)[1]
        if best:
            save_best(self.run.folder, weights, step, accuracy)
        say(s, f"epoch {epoch:.4g}: accuracy {accuracy:.1%}{' (best)' if best else ''}")

    @torch.no_grad()
    def _accuracy(self) -> float:
        right = count = 0
        for batch in self.held.once():
            batch = batch.to(self.plan.device)
            assert batch.labels is not None
            logits = self.model(self.normalize(batch.images))
            right += int((logits.argmax(1) == batch.labels).sum())
            count += len(batch.labels)
        return right / count


def _parts(settings: FinetuneSettings, source: Source) -> tuple[Source, Source]:
    """Training and validation images."""
    if source.labels is None or source.classes is None:
        raise NoLabels.of(source.name)
    if settings.val is None:
        # The hold-out is the same whatever the seed; the seed draws which labels are used.
        train, val = split(source, settings.holdout, seed=SPLIT_SEED)
    else:
        train, val = source, open_source(settings.val)
        if val.classes != source.classes:
            raise InvalidInput(
                f"the classes of {settings.val!r} ({', '.join(val.classes or ['none'])}) must be those of "
                f"{source.name!r} ({', '.join(source.classes)})"
            )
    if settings.labels_per_class is not None:
        train = few_per_class(train, settings.labels_per_class, settings.seed)
    return train, val


def _describe(p: Plan, loader: Loader) -> ClassifierConfig:
    assert p.train.classes is not None
    mean, std = (loader.mean, loader.std) if p.pretrained is None else p.pretrained[1:]
    return ClassifierConfig(p.backbone, p.train.classes, mean, std, fixed_view(p.val).share)


def _model(p: Plan, classes: int) -> ClassifierModel:
    """The classifier as training begins, new or on the pretrained backbone; mode `head` freezes the rest."""
    s = p.settings
    model = build_classifier(p.backbone, classes, s.drop_path if s.mode == "full" else 0.0)
    if p.pretrained is None:
        return model
    backbone = p.pretrained[0]
    weights = backbone.state_dict()
    if not isinstance(backbone, TimmBackbone) and not isinstance(p.backbone, TimmConfig):
        weights["pos_embed"] = resize_positions(weights["pos_embed"], backbone.config.grid, p.backbone.grid)
    # The norm over tokens gives way to one over their mean, which is new, as is the head.
    new = ("fc_norm", "head")
    own = model.state_dict()
    taken = {name: value for name, value in own.items() if name.startswith(new)}
    load_into(model, {**{name: weights[name] for name in own if name not in taken}, **taken}, str(s.from_run))
    if s.mode == "head":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(new))
    return model


@torch.no_grad()
def _standardise(model: ClassifierModel, normalize: nn.Module, loader: Loader) -> None:
    """Let the last norm begin as a standardisation of the features of the loader's images.

    Averaged tokens are nearly the same for every image: the head would spend most of a short training on
    finding what differs. MAE's linear probe has a batch norm there for the same reason (He et al. 2021,
    appendix A.1); here a batch norm's statistics become the weights of the norm that is there already.
    """
    model.eval()
    norm: nn.LayerNorm = model.fc_norm  # type: ignore[assignment]
    features = torch.cat(
        [
            nn.functional.layer_norm(model.mean_features(normalize(batch.images)), norm.normalized_shape)
            for batch in loader.once()
        ]
    )
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    deviation = deviation.clamp(min=LEAST_DEVIATION)
    norm.weight.copy_(1 / deviation)
    norm.bias.copy_(-mean / deviation)
    model.train()


def _finish(p: Plan, run: Run, fitted: FitResult, held: Loader) -> FinetuneResult:
    """The report and the pictures, from the best weights as `predict` will use them."""
    classifier = Classifier(run.folder, p.device)
    truth, predicted = (labels.numpy() for labels in classifier.judge(held.once()))
    lines = read_log(run.folder / "metrics.jsonl")
    scores = [line["val_accuracy"] for line in lines if "val_accuracy" in line]
    result = FinetuneResult(
        run.folder,
        fitted,
        accuracy=float((truth == predicted).mean()),
        best_step=best_so_far(run.folder)[0],
        last_accuracy=scores[-1],
        failed=failed_images(run),
    )
    counts = {"train_images": len(p.train), "heldout_images": len(truth)}
    figures = {name: getattr(result, name) for name in ("accuracy", "best_step", "last_accuracy")}
    run.write("evaluation.json", {**figures, **counts})
    classes = classifier.config.classes
    try:
        result.report = _report(truth, predicted, classes)
        write_atomically(run.folder / "report.txt", result.report)
    except MissingPackage as error:
        result.notes.append(f"no report: {error}")
    try:
        confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(confusion, (truth, predicted), 1)
        draw_confusion(run.folder / "confusion.png", confusion, classes)
        draw_curves(run.folder / "metrics.jsonl", run.folder / "loss.png")
    except MissingPackage as error:
        result.notes.append(f"no pictures: {error}")
    return result


def _report(truth: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]) -> str:
    try:
        from sklearn.metrics import classification_report
    except ImportError as error:
        raise MissingPackage(
            "the classification report needs the package scikit-learn: pip install imagen-fast[train]"
        ) from error
    # A class that was never predicted has precision 0, which is no reason for a warning.
    return classification_report(
        truth, predicted, labels=range(len(classes)), target_names=classes, digits=3, zero_division=0
    )
