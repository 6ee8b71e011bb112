"""Images of a Hugging Face dataset, as they are encoded in its Arrow files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from imagen_fast.data.errors import OddDataset, TooFewImages
from imagen_fast.data.sources import Source, numbered_classes
from imagen_fast.errors import MissingPackage

# What `save_to_disk` writes beside the data of one dataset, and beside several splits.
SAVED: Final = ("state.json", "dataset_info.json")
SAVED_SPLITS: Final = "dataset_dict.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class HuggingFaceSource(Source):
    """The images of a map-style `datasets.Dataset`, which lie in memory-mapped Arrow files.

    Labels are those of a `ClassLabel` column with its names, or of a column of integers from 0 on that is
    named; None, where an image has none (-1 or null).
    """

    dataset: Any = field(repr=False)
    column: str
    rows: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, dataset: Any, image_column: str | None = None, label_column: str | None = None) -> Self:
        """From a `datasets.Dataset`.

        Args:
            image_column: of the feature `Image`; None takes the only one.
            label_column: None takes the only `ClassLabel`, if there is exactly one.

        Raises `OddDataset` for a streamed dataset, for one of several splits, and where the columns are not
        what they should be; `MissingPackage` without the package datasets.
        """
        package = _package()
        if isinstance(dataset, package.DatasetDict | package.IterableDatasetDict):
            raise OddDataset(f"the dataset has the splits {', '.join(map(repr, dataset))}; give one of them")
        if isinstance(dataset, package.IterableDataset):
            raise OddDataset(
                "a streamed dataset has no places to go on from; load it without streaming=True, or write it "
                "as WebDataset shards"
            )
        if not isinstance(dataset, package.Dataset):
            raise OddDataset(f"a datasets.Dataset is needed, not {type(dataset).__name__}")
        if not len(dataset):
            raise TooFewImages("the dataset holds no image; at least one is needed")
        image = _column(dataset, package.Image, "image", image_column)
        encoded = dataset.with_format(None).select_columns([image])
        labels, classes = _labels(dataset, package.ClassLabel, label_column)
        info = dataset.info
        return cls(
            name=" ".join(filter(None, (info.dataset_name or "dataset", str(dataset.split or "")))),
            dataset=encoded.cast_column(image, package.Image(decode=False)),
            column=image,
            rows=np.arange(len(dataset)),
            labels=labels,
            classes=classes,
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """From a folder that `Dataset.save_to_disk` wrote. Raises what `of` does."""
        package = _package()
        path = Path(folder).expanduser()
        if (path / SAVED_SPLITS).exists():
            splits = ", ".join(repr(str(state.parent)) for state in sorted(path.glob(f"*/{SAVED[0]}")))
            raise OddDataset(f"the dataset {str(path)!r} has several splits; give one of {splits}")
        try:
            dataset = package.load_from_disk(str(path))
        except Exception as error:  # whatever a broken file brings out of Arrow and JSON
            raise OddDataset(f"the dataset {str(path)!r} cannot be opened: {error}") from error
        return replace(cls.of(dataset), name=str(path))

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, index: int) -> str:
        return f"{self.name}[{self.rows[index]}]"

    def encoded(self, index: int) -> bytes:
        image = self.dataset[int(self.rows[index])][self.column]
        if image is None:
            raise OSError("the row has no image")
        if image["bytes"] is not None:
            return image["bytes"]
        return Path(image["path"]).read_bytes()

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise TooFewImages(f"a subset of {self.name!r} holds no image; at least one is needed")
        return replace(self, rows=self.rows[chosen], labels=self._labels_at(chosen))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return all((folder / name).exists() for name in SAVED) or (folder / SAVED_SPLITS).exists()


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingPackage(
            "a Hugging Face dataset needs the package datasets: pip install imagen-fast[datasets]"
        ) from error
    return datasets


def _column(dataset: Any, kind: type, what: str, wanted: str | None) -> str:
    found = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    if wanted is not None:
        if wanted not in found:
            raise OddDataset(f"the {what} column must be one of {found}, not {wanted!r}")
        return wanted
    if len(found) != 1:
        raise OddDataset(
            f"the dataset has the {what} columns {found}; name one of them"
            if found
            else f"none of the columns {dataset.column_names} holds images (feature Image)"
        )
    return found[0]


def _labels(
    dataset: Any, class_label: type, wanted: str | None
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    if wanted is None:
        found = [name for name, feature in dataset.features.items() if isinstance(feature, class_label)]
        if len(found) != 1:
            return None, None
        wanted = found[0]
    elif wanted not in dataset.column_names:
        raise OddDataset(f"the label column must be one of {dataset.column_names}, not {wanted!r}")
    feature = dataset.features[wanted]
    kind = str(getattr(feature, "dtype", feature))
    if not kind.startswith(("int", "uint")):
        raise OddDataset(f"the label column {wanted!r} must hold integers, not {kind}")
    values = dataset.with_format("arrow").select_columns([wanted])[:][wanted]
    labels = values.fill_null(-1).to_numpy().astype(np.int64)
    if (labels < 0).any():
        return None, None
    names = getattr(feature, "names", None)
    return labels, numbered_classes(labels) if names is None else tuple(names)
