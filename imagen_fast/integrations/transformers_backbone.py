"""Our vision transformer as transformers' AutoBackbone, AutoModel and AutoModelForImageClassification.

Importing this module makes the model type `imagen_fast_vit` known to them, beside their own; nothing of
theirs is replaced. A folder that `imagen-fast export --format hub` wrote is read by all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Self

from torch import Tensor, nn
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BackboneOutput, BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from imagen_fast.errors import InvalidInput
from imagen_fast.models import VisionTransformer, ViTConfig
from imagen_fast.models.layers import initialise
from imagen_fast.models.positions import resize_positions, sincos_positions
from imagen_fast.models.vit import Sizes
from imagen_fast.tasks.folder import classes_of, describe

try:
    from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
except ImportError:  # where the first releases of transformers 5 have them
    from transformers.utils.backbone_utils import (  # type: ignore[attr-defined]
        BackboneConfigMixin,
        BackboneMixin,
    )

# What a model may have in place of what its weights came from.
_NEW = ("norm", "fc_norm", "head")

logger = logging.get_logger(__name__)


class ImagenFastViTConfig(BackboneConfigMixin, PreTrainedConfig):
    """The shapes of a vision transformer, under our names and under those of transformers' ViT.

    Args:
        image_size: (height, width) in pixels, or the side of a square.
        patch_size, channels, embed_dim, depth, heads, mlp_ratio, norm_eps, positions, pool: see
            `imagen_fast.models.ViTConfig`.
        drop_path: stochastic depth of the last block, rising linearly from 0 at the first.
        apply_layernorm: whether feature maps are normalised as the last tokens are. A model that pools by
            `avg` has no such norm, and its maps are as they are.
        reshape_hidden_states: whether feature maps are [B, E, h, w], or tokens [B, 1 + n, E] as DPT wants.
        out_features, out_indices: the stages whose feature maps a backbone gives, by name or by number:
            `stem`, the tokens before the first block, is 0, and `stage1` what the first block makes of them.
    """

    model_type = "imagen_fast_vit"
    attribute_map = {  # noqa: RUF012 an annotation would make it a field of the configuration
        "hidden_size": "embed_dim",
        "num_hidden_layers": "depth",
        "num_attention_heads": "heads",
        "num_channels": "channels",
        "layer_norm_eps": "norm_eps",
        "drop_path_rate": "drop_path",
    }

    def __init__(
        self,
        image_size: int | tuple[int, int] | list[int] = ViTConfig.image_size,
        patch_size: int = ViTConfig.patch_size,
        channels: int = ViTConfig.channels,
        embed_dim: int = ViTConfig.embed_dim,
        depth: int = ViTConfig.depth,
        heads: int = ViTConfig.heads,
        mlp_ratio: float = ViTConfig.mlp_ratio,
        norm_eps: float = ViTConfig.norm_eps,
        positions: str = ViTConfig.positions,
        pool: str = ViTConfig.pool,
        drop_path: float = 0.0,
        apply_layernorm: bool = True,
        reshape_hidden_states: bool = True,
        out_features: list[str] | None = None,
        out_indices: list[int] | tuple[int, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_size = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
        self.patch_size = patch_size
        self.channels = channels
        self.embed_dim = embed_dim
        self.depth = depth
        self.heads = heads
        self.mlp_ratio = mlp_ratio
        self.norm_eps = norm_eps
        self.positions = positions
        self.pool = pool
        self.drop_path = drop_path
        self.apply_layernorm = apply_layernorm
        self.reshape_hidden_states = reshape_hidden_states
        # These are of the depth, and written for whoever reads the file.
        kwargs.pop("stage_names", None)
        super().__init__(**kwargs)  # names of transformers' ViT among the rest
        self.stage_names = ["stem", *(f"stage{block}" for block in range(1, self.depth + 1))]
        if out_indices is not None:
            self.out_indices = out_indices
            if out_features not in (None, self.out_features):
                raise InvalidInput(f"out_features {out_features} are not the stages {list(out_indices)}")
        else:
            self.out_features = out_features  # type: ignore[assignment]  # None: the last stage
        self.shapes  # noqa: B018 what cannot be is told here

    @property
    def shapes(self) -> ViTConfig:
        """As our models take them.

        Raises:
            InvalidInput: shapes that do not go together.
        """
        height, width = self.image_size
        return ViTConfig(
            image_size=(height, width),
            patch_size=self.patch_size,
            channels=self.channels,
            embed_dim=self.embed_dim,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            norm_eps=self.norm_eps,
            positions=self.positions,  # type: ignore[arg-type]
            pool=self.pool,  # type: ignore[arg-type]
        )


class ImagenFastViTPreTrainedModel(PreTrainedModel):
    """What the models below share: `vit`, our `VisionTransformer`.

    Its attention is ours, whatever `attn_implementation` is asked for; there are no others to choose from.
    """

    config_class = ImagenFastViTConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _sizes: Sizes = "divisible"
    _no_split_modules = ["Block"]  # noqa: RUF012 theirs has no annotation either

    def __init__(self, config: ImagenFastViTConfig, num_classes: int = 0) -> None:
        super().__init__(config)
        self.gradient_checkpointing = False
        self.vit = VisionTransformer(config.shapes, num_classes, config.drop_path, sizes=self._sizes)
        # Made in float32 whatever `dtype` was asked for.
        self.vit.pos_embed.data = self.vit.pos_embed.data.to(self.vit.cls_token.dtype)
        self.post_init()

    @classmethod
    def from_vit(cls, vit: nn.Module, **config: Any) -> Self:
        """A model that begins with the weights of one of ours.

        That is what `load_backbone` reads from a run, `load_timm` and `load_vit` from others' models, and the
        encoder that `load_vitmae` gives.

        Args:
            config: more of an `ImagenFastViTConfig`. Of another `image_size` the positions are resized; with
                another `pool` the norm before the head is new, as is a head for another number of classes.

        Raises:
            InvalidInput: it is no vision transformer of ours, it has been changed since it was made, or
                `config` asks for other shapes than it has.
        """
        if not isinstance(vit, VisionTransformer):
            raise InvalidInput(f"only a VisionTransformer has such a form, not a {type(vit).__name__}")
        describe(vit, {})  # which refuses one that is not as its configuration says
        classes = classes_of(vit)
        if classes and not config.keys() & {"num_labels", "id2label"}:
            config["num_labels"] = classes
        last: Any = vit.blocks[-1]
        config.setdefault("drop_path", last.drop_path.rate)
        model: Any = cls(cls.config_class(**{**vit.config.to_dict(), **config}))
        model.to(vit.cls_token.dtype)
        asked, has = model.vit.config.to_dict(), vit.config.to_dict()
        for name in has.keys() - {"image_size", "pool", "positions"}:
            if asked[name] != has[name]:
                raise InvalidInput(f"the weights are of {name}={has[name]}, not of {name}={asked[name]}")
        weights = vit.state_dict()
        weights["pos_embed"] = resize_positions(weights["pos_embed"], vit.config.grid, model.vit.config.grid)
        same_head = model.vit.num_classes == classes
        weights = {n: w for n, w in weights.items() if same_head or not n.startswith("head.")}
        odd = model.vit.load_state_dict(weights, strict=False)
        # Of another pooling the norm is elsewhere; a new head is new.
        left = [n for n in (*odd.missing_keys, *odd.unexpected_keys) if n.split(".")[0] not in _NEW]
        assert not left, left
        return model

    def _initialize_weights(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super()._initialize_weights(module, *args, **kwargs)
        # Whatever is loaded can be trained from then on, but a table of sines and cosines is none to train.
        if module is self.vit and self.vit.config.positions == "sincos":
            self.vit.pos_embed.requires_grad_(False)

    def _init_weights(self, module: nn.Module) -> None:
        """What a checkpoint lacks begins as in a new model of ours."""
        if all(getattr(p, "_is_hf_initialized", False) for p in module.parameters(recurse=False)):
            return  # not left to the functions below: a view of a weight does not know that it was loaded
        if module is self.vit:
            positions = self.vit.pos_embed
            initialization.normal_(self.vit.cls_token, std=0.02)
            if self.vit.config.positions == "sincos":
                table = sincos_positions(positions.shape[-1], self.vit.config.grid)
                initialization.copy_(positions, table)
            else:
                initialization.normal_(positions, std=0.02)
        elif module is self.vit.head and isinstance(module, nn.Linear):
            initialization.normal_(module.weight, std=2e-5)
            initialization.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            super()._init_weights(module)
        else:
            initialise(module)

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, *args: Any, **kwargs: Any
    ) -> str:
        # A model around this backbone may well ask for what suits the rest of it.
        if attn_implementation not in (None, "eager", "imagen_fast"):
            logger.warning_once(
                f"attn_implementation={attn_implementation!r} has nothing to choose in "
                f"{type(self).__name__}, whose attention is imagen_fast's own"
            )
        return "imagen_fast"

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return False

    def _stages(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """The tokens [B, 1 + n, E] before the first block, and after each."""
        x = self.vit.embed(pixel_values)
        yield x
        for block in self.vit.blocks:
            if self.gradient_checkpointing and self.training:
                x = self._gradient_checkpointing_func(block, x)
            else:
                x = block(x)
            yield x

    def _tokens(self, pixel_values: Tensor, every: bool) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The normalised tokens, and with `every` those of all stages."""
        stages: tuple[Tensor, ...] = ()
        for x in self._stages(pixel_values):
            stages = (*stages, x) if every else (x,)
        return self.vit.norm(stages[-1]), stages if every else None

    def _every_stage(self, output_hidden_states: bool | None, output_attentions: bool | None) -> bool:
        if output_attentions or (output_attentions is None and self.config.output_attentions):
            raise InvalidInput(
                "output_attentions cannot be True: the probabilities of attention are never in memory here"
            )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return bool(output_hidden_states)


class ImagenFastViTModel(ImagenFastViTPreTrainedModel):
    """AutoModel: normalised tokens, the class token first, and what the head would read of them."""

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """[B, C, H, W], normalised -> tokens [B, 1 + n, E] and pooled [B, E]."""
        every = self._every_stage(output_hidden_states, output_attentions)
        tokens, stages = self._tokens(pixel_values, every)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens, pooler_output=self.vit.pool(tokens), hidden_states=stages
        )


class ImagenFastViTForImageClassification(ImagenFastViTPreTrainedModel):
    """AutoModelForImageClassification: `num_labels` logits, and with labels the loss."""

    def __init__(self, config: ImagenFastViTConfig) -> None:
        super().__init__(config, config.num_labels or 0)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **loss: Any,
    ) -> ImageClassifierOutput:
        """[B, C, H, W], normalised, and labels [B] -> logits [B, num_labels] and a scalar loss.

        Args:
            loss: for transformers' loss function, as the Trainer gives it.
        """
        every = self._every_stage(output_hidden_states, output_attentions)
        tokens, stages = self._tokens(pixel_values, every)
        logits = self.vit.head(self.vit.pool(tokens))
        loss_function: Any = self.loss_function
        return ImageClassifierOutput(
            loss=None if labels is None else loss_function(labels, logits, self.config, **loss),
            logits=logits,
            hidden_states=stages,
        )


class ImagenFastViTBackbone(BackboneMixin, ImagenFastViTPreTrainedModel):
    """AutoBackbone: feature maps of the stages that the configuration names, all of the patches' size."""

    has_attentions = False

    # A detector pads a batch to whatever size its largest image has.
    _sizes = "padded"

    def __init__(self, config: ImagenFastViTConfig) -> None:
        super().__init__(config)
        if self.backbone_type is None:  # the first releases of transformers 5 leave it to the model
            self._init_backbone(config)  # type: ignore[operator]
        self.num_features = [config.embed_dim] * len(config.stage_names)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BackboneOutput:
        """[B, C, H, W], normalised -> a feature map [B, E, h, w] for each of `out_features`."""
        every = self._every_stage(output_hidden_states, output_attentions)
        # Blocks after the last stage that is asked for need not be computed.
        last = len(self.stage_names) if every else 1 + self.stage_names.index(self.out_features[-1])
        stages: tuple[Tensor, ...] = ()
        maps: tuple[Any, ...] = ()
        for name, x in islice(zip(self.stage_names, self._stages(pixel_values), strict=True), last):
            if every:
                stages = (*stages, x)
            if name in self.out_features:
                maps = (*maps, self._map(x, pixel_values))
        return BackboneOutput(feature_maps=maps, hidden_states=stages if every else None)

    def _map(self, tokens: Tensor, pixel_values: Tensor) -> Tensor:
        if self.config.apply_layernorm:
            tokens = self.vit.norm(tokens)
        if not self.config.reshape_hidden_states:
            return tokens
        return (
            tokens[:, 1:]
            .transpose(1, 2)
            .unflatten(2, self.vit.patch_embed.grid_of(pixel_values))
            .contiguous()
        )


AutoConfig.register(ImagenFastViTConfig.model_type, ImagenFastViTConfig)
AutoModel.register(ImagenFastViTConfig, ImagenFastViTModel)
AutoBackbone.register(ImagenFastViTConfig, ImagenFastViTBackbone)
AutoModelForImageClassification.register(ImagenFastViTConfig, ImagenFastViTForImageClassification)
