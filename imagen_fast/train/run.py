"""A run's folder: what was asked for, and everything that came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_fast import __version__
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.train.checkpoint import checkpoint_folders, write_atomically


@dataclass
class Run:
    """`config` is `run.json`: the kind of run ('pretrain', 'classification') and every setting of it."""

    folder: Path
    config: dict[str, Any]

    @classmethod
    def create(cls, folder: str | Path, config: dict[str, Any]) -> Run:
        """A new run.

        Raises:
            InvalidInput: the folder already holds one.
        """
        run = cls(Path(folder), {"imagen_fast": __version__, **config})
        if (run.folder / "run.json").exists() and checkpoint_folders(run.folder):
            raise InvalidInput(
                f"{folder} already holds a run; give --resume to continue it, or another --out"
            )
        run.folder.mkdir(parents=True, exist_ok=True)
        run.write("run.json", run.config)
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """A run that exists.

        Raises:
            CheckpointError: the folder holds none.
        """
        file = Path(folder) / "run.json"
        try:
            return cls(Path(folder), json.loads(file.read_text()))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder} is not the folder of a run: {error}") from error

    def write(self, name: str, content: Any) -> Path:
        """Write a JSON file into the folder, atomically."""
        path = self.folder / name
        write_atomically(path, json.dumps(content, indent=2) + "\n")
        return path
