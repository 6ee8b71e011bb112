"""Our models with the methods of the Hugging Face Hub: `from_pretrained`, `save_pretrained`, `push_to_hub`.

    model = VisionTransformer.from_pretrained("user/name")

Each class is one of `imagen_fast.models`, and folders are those of `imagen-fast export --format hub`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from json import JSONDecodeError
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError
from torch import nn

from imagen_fast import models
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.tasks.card import LICENSE, model_card, training_facts
from imagen_fast.tasks.export import load_autoencoder, model_of
from imagen_fast.tasks.folder import ABOUT, CONFIG, FOLDER_WEIGHTS, describe, load_folder, save_folder


class OnHub(PyTorchModelHubMixin):
    """What the classes below share.

    Attributes:
        about: the names of the classes and what is known of the training, for the configuration and the card.
    """

    about: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_run(cls, run: str | Path) -> Self:
        """What a run left, and what its folder says of the training.

        Raises:
            CheckpointError: the folder holds no finished run, or left another model.
            InvalidInput: a masked autoencoder is asked for that the run has not.
        """
        if issubclass(cls, models.MaskedAutoencoder):
            made = on_hub(load_autoencoder(run), {"training": training_facts(run)})
        else:
            made = on_hub(*model_of(run))
        if not isinstance(made, cls):
            raise CheckpointError(f"{run} left a {type(made).__name__}, not a {cls.__name__}")
        return made

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """The model of a repository, or of a folder, ready for inference.

        Args:
            pretrained_model_name_or_path: `user/name`, or the folder.
            options: `map_location`, the device; revision, token, cache_dir, local_files_only and
                force_download as of `huggingface_hub.ModelHubMixin.from_pretrained`.

        Raises:
            CheckpointError: there is another kind of model, or what is there does not go together.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except HFValidationError as error:
            raise CheckpointError(
                f"{pretrained_model_name_or_path} is neither a folder nor the name of a repository"
            ) from error
        except JSONDecodeError as error:
            file = f"{pretrained_model_name_or_path}/{CONFIG}"
            raise CheckpointError(f"{file} is damaged: {error}") from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str | torch.device = "cpu",
        **given: Any,
    ) -> Self:
        folder = model_id
        if not os.path.isdir(model_id):
            folder = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[CONFIG, FOLDER_WEIGHTS],
            )
        made: Any
        made, values = load_folder(folder, cls)  # type: ignore[type-var]
        # The mixin gives what it has read of the configuration; the rest is from the caller.
        given = {name: value for name, value in given.items() if name != "config"}
        if odd := sorted(
            name for name, value in given.items() if name not in values or value != values[name]
        ):
            raise InvalidInput(f"a model is loaded as it was saved; {odd[0]!r} cannot be given")
        made.about = {name: values[name] for name in ABOUT if name in values}
        return made.to(map_location)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_folder(self, save_directory, dict(self.about))  # type: ignore[arg-type]

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **upload: Any
    ) -> str:
        """Upload the model and its card; returns the address of the commit.

        Args:
            repo_id: `user/name`.
            model_card_kwargs: `license`, as the Hub writes it, where it is not that of imagen_fast.
            upload: as of `huggingface_hub.ModelHubMixin.push_to_hub`: private, token, branch and so on.
        """
        card = {"name": repo_id, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=card, **upload)

    def generate_model_card(self, *, name: str | None = None, license: str = LICENSE) -> ModelCard:
        """The card, from what is known."""
        parameters = sum(p.numel() for p in self.parameters())  # type: ignore[attr-defined]
        return ModelCard(model_card(describe(self, dict(self.about)), parameters, name, license))  # type: ignore


class VisionTransformer(OnHub, models.VisionTransformer):
    """`imagen_fast.models.VisionTransformer`, a backbone or a classifier, with the Hub's methods."""


class MaskedAutoencoder(OnHub, models.MaskedAutoencoder):
    """`imagen_fast.models.MaskedAutoencoder`, that predicts pixels, with the Hub's methods."""


class PixelTransformer(OnHub, models.PixelTransformer):
    """`imagen_fast.models.PixelTransformer` with the Hub's methods."""


class PixelClassifier(OnHub, models.PixelClassifier):
    """`imagen_fast.models.PixelClassifier` with the Hub's methods."""


_CLASSES: dict[type[nn.Module], type[OnHub]] = {
    models.VisionTransformer: VisionTransformer,
    models.MaskedAutoencoder: MaskedAutoencoder,
    models.PixelTransformer: PixelTransformer,
    models.PixelClassifier: PixelClassifier,
}


def on_hub(model: nn.Module, about: Mapping[str, Any] = OnHub.about) -> Any:
    """A live model of ours under the class that has the Hub's methods; parameters and buffers are shared.

    Its modules are its own, with their modes and hooks.

    Args:
        about: see `OnHub`.

    Raises:
        InvalidInput: another kind of model.
    """
    describe(model, {})
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    made: Any = copy.deepcopy(model, shared)
    made.__class__ = next(ours for plain, ours in _CLASSES.items() if isinstance(model, plain))
    made.about = dict(about)  # which can be copied and pickled
    return made
