"""Images in tar shards as WebDataset writes them, read where they lie."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from imagen_fast.data.errors import BrokenShard, NoImages, TooFewImages
from imagen_fast.data.sources import MOST_CLASSES, Source, numbered_classes
from imagen_fast.data.tar_index import Member, TarError, TarFile

# The first of these that a sample has is its image.
EXTENSIONS: Final = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
LABEL: Final = "cls"
# Shards are long, and only a few are read at a time.
OPEN_SHARDS: Final = 64
# Indexing waits for storage more than it computes.
INDEXERS: Final = 16
_NOTES: Final = re.compile(r"__[^/]*__(/|$)")
COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


@dataclass(frozen=True, eq=False, kw_only=True)
class TarSource(Source):
    """Images in tar shards: files of a sample stand together under one key, `n/0017.jpg` and `n/0017.cls`.

    A key is the path up to the first dot of the last name in it (WebDataset's convention). The image is the
    member `jpg`, `jpeg`, `png`, `webp`, `gif` or `bmp`; the label is the number of a class that `cls` holds
    in ASCII, if every image has one. All else is left alone: nothing is extracted, and nothing is unpickled.

    At opening the headers are walked once, as DALI does where it is given no index file; after that each
    image is one read at a known place. `shards` numbers the file of each image: the loader shuffles such a
    source so that neighbours are read together.
    """

    root: Path
    files: tuple[str, ...] = field(repr=False)
    stamps: tuple[tuple[int, int], ...] = field(repr=False)
    members: tuple[str, ...] = field(repr=False)
    shards: np.ndarray = field(repr=False)
    places: np.ndarray = field(repr=False)

    @classmethod
    def scan(cls, shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Self:
        """Find the samples of shards.

        Args:
            shards: a path, a glob (`shards/*.tar`), WebDataset's braces (`train-{000000..000012}.tar`), or
                a list of any of those; their order is that of the source.

        A shard that breaks off is used up to the last sample that another one follows; which, and what
        samples have no image, is in `unusable`. Raises `BrokenShard` where one is not there, is compressed,
        is no tar file or holds a file twice; `NoImages` where not one image is found.
        """
        names = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
        paths = [path for name in names for path in _expand(os.path.expanduser(os.fspath(name)))]
        if not paths:
            raise NoImages("the list of shards is empty; at least one is needed")
        title = os.fspath(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        root = Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]))
        files = tuple(os.path.relpath(path, root) for path in paths)
        with ThreadPoolExecutor(INDEXERS) as pool:
            indices = list(pool.map(_index, paths, files))
        samples = [sample for index in indices for sample in index.samples]
        unusable = tuple(pair for index in indices for pair in index.unusable)
        if not samples:
            why = f"; {unusable[0][0]}: {unusable[0][1]}" if unusable else ""
            raise NoImages(
                f"the {len(paths)} shards {title!r} hold no JPEG, PNG, WebP, GIF or BMP image{why}"
            )
        labels = [sample.label for sample in samples]
        known = np.array(labels, dtype=np.int64) if None not in labels else None
        return cls(
            name=title,
            root=root,
            files=files,
            stamps=tuple(index.stamp for index in indices),
            members=tuple(sample.member for sample in samples),
            shards=np.repeat(np.arange(len(indices)), [len(index.samples) for index in indices]),
            places=np.array([(sample.offset, sample.size) for sample in samples], dtype=np.int64),
            labels=known,
            classes=None if known is None else numbered_classes(known),
            unusable=unusable,
        )

    def __len__(self) -> int:
        return len(self.members)

    def path(self, index: int) -> str:
        return f"{self.files[self.shards[index]]}/{self.members[index]}"

    def encoded(self, index: int) -> bytes:
        shard = self.shards[index]
        file = _open(str(self.root / self.files[shard]), self.stamps[shard])
        offset, size = (int(x) for x in self.places[index])
        data = file.read(offset, size)
        if len(data) < size:
            raise OSError(f"the shard ends after {len(data)} of the image's {size} bytes")
        return data

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise TooFewImages(f"a subset of {self.name!r} holds no image; at least one is needed")
        return replace(
            self,
            members=tuple(self.members[i] for i in chosen),
            shards=self.shards[chosen],
            places=self.places[chosen],
            labels=self._labels_at(chosen),
        )


def names_shards(name: str) -> bool:
    """Whether a path is written like one of tar shards, compressed ones included."""
    return re.search(r"\.(tar(\.\w+)?|tgz)$", name) is not None


def shards_title(name: str) -> str:
    """What to call a data set by the name of its shards: what comes before the number."""
    path = Path(name)
    return re.split(r"[{*?\[]|\.tar|\.tgz", path.name)[0].rstrip("-_.") or path.absolute().parent.name


@lru_cache(OPEN_SHARDS)
def _open(path: str, stamp: tuple[int, int]) -> TarFile:
    """Once for all who read it. Python closes one that is not used any more, but never under a reader."""
    file = TarFile(path)
    if _stamp(file) != stamp:
        raise OSError("the shard has changed since it was indexed")
    return file


def _stamp(file: TarFile) -> tuple[int, int]:
    return file.status.st_size, file.status.st_mtime_ns


# Names.


def _expand(name: str) -> Iterator[str]:
    """The paths that a name stands for. Raises `BrokenShard` where a glob finds none."""
    if "://" in name or name.startswith("pipe:"):
        raise BrokenShard(f"shards must be files that lie here, not {name!r}")
    for each in dict.fromkeys(_expand_braces(name)):  # a brace within a brace would name some twice
        if os.path.exists(each) or not glob.has_magic(each):
            yield each
        elif found := sorted(glob.glob(each)):
            yield from found
        else:
            raise BrokenShard(f"no file is found for the shards {each!r}")


def _expand_braces(name: str) -> Iterator[str]:
    """`a{00..11}b` and `a{x,y}b`, as a shell expands them; a brace of another kind stays as it is."""
    for brace in re.finditer(r"\{([^{}]*)\}", name):
        inside = brace.group(1)
        if span := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
            first, last = span.groups()
            width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
            step = 1 if int(first) <= int(last) else -1
            parts = [f"{n:0{width}}" for n in range(int(first), int(last) + step, step)]
        elif "," in inside:
            parts = inside.split(",")
        else:
            continue
        for part in parts:
            yield from _expand_braces(name[: brace.start()] + part + name[brace.end() :])
        return
    yield name


# Indexing.


class _Sample(NamedTuple):
    member: str
    offset: int
    size: int
    label: int | None


class _Index(NamedTuple):
    """The samples of a shard, in its order; (path, reason) of what is no image."""

    stamp: tuple[int, int]
    samples: list[_Sample]
    unusable: list[tuple[str, str]]


def _index(path: str, shard: str) -> _Index:
    try:
        file = TarFile(path)
        start = file.read(0, 8)
    except OSError as error:
        raise BrokenShard(f"shard {path!r} cannot be read: {error.strerror}") from error
    for magic, method in COMPRESSED.items():
        if start.startswith(magic):
            raise BrokenShard(
                f"shard {path!r} is compressed with {method}, so that images cannot be read at their places; "
                "decompress it first (JPEGs gain nothing from it)"
            )
    if not start:
        return _Index(_stamp(file), [], [(shard, "the shard is an empty file")])
    found: dict[str, dict[str, Member]] = {}  # of each key the members by extension
    unusable: list[tuple[str, str]] = []
    broken: TarError | None = None
    member = None
    try:
        for member in file.members():
            folder, _, last = member.name.rpartition("/")
            stem, dot, extension = last.partition(".")
            # Hidden files, and WebDataset's notes about a shard.
            if not stem or not dot or _NOTES.search(member.name):
                continue
            parts = found.setdefault(f"{folder}/{stem}", {})
            if extension.lower() in parts:
                raise BrokenShard(
                    f"shard {path!r} holds {member.name!r} twice; each key may have a file of a kind once"
                )
            parts[extension.lower()] = member
    except TarError as error:
        if member is None:
            raise BrokenShard(f"shard {path!r} is no tar file: {error}") from error
        broken = error
        if found:
            found.popitem()  # of which more may have followed
    samples = []
    for key, parts in found.items():
        kind = next((kind for kind in EXTENSIONS if kind in parts), None)
        if kind is None:
            held = ", ".join(sorted(parts))
            unusable.append((f"{shard}/{key.lstrip('/')}", f"the sample has no image, only {held}"))
            continue
        image = parts[kind]
        label = _label(file, parts[LABEL]) if LABEL in parts else None
        samples.append(_Sample(image.name, image.offset, image.size, label))
    if broken is not None:
        used = f"{len(samples)} images of the shard are used" if samples else "no image of the shard is used"
        unusable.append((shard, f"{used}, what follows is lost: {broken}"))
    return _Index(_stamp(file), samples, unusable)


def _label(file: TarFile, member: Member) -> int | None:
    """None where it is no number of a class: whoever needs labels will say so."""
    size = min(member.size, 20)
    text = (member.head[:size] if len(member.head) >= size else file.read(member.offset, size)).strip()
    label = int(text) if re.fullmatch(rb"\d{1,18}", text) else MOST_CLASSES
    return label if label < MOST_CLASSES else None
