"""AdamW on float32 master weights, while the model itself works in bf16 or float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from imagen_fast import native
from imagen_fast.errors import CheckpointError
from imagen_fast.models.batch_norm import batch_norms
from imagen_fast.train.checkpoint import load_into


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019) with decoupled decay, on masters apart from the working weights.

    The module is cast to `dtype` in place, but for batch norms. In bf16 the optimiser keeps a float32 master
    of every parameter; in float32 the parameter is its own master. Gradients and moments: float32 arithmetic
    in one pass (a native kernel on the CPU, PyTorch's fused one elsewhere).

    Args:
        module: the model, in float32.
        dtype: type of the working weights.
        decay: weight decay of matrices; vectors, biases, norms, tokens and positions have none.
        lr_scale: factor of the learning rate by parameter name (layer-wise decay); 1 where not given.
    """

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        lr_scale: Callable[[str], float] | None = None,
    ) -> None:
        self.module, self.dtype, self.betas, self.eps = module, dtype, betas, eps
        self.steps = 0
        wide = {name: p.detach().to(torch.float32) for name, p in module.named_parameters()}
        _cast(module, dtype)
        # Frozen weights too keep their float32 value, for the checkpoint.
        self.master = (
            wide if dtype != torch.float32 else {n: p.detach() for n, p in module.named_parameters()}
        )
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.first = {name: torch.zeros_like(self.master[name]) for name in self.trained}
        self.second = {name: torch.zeros_like(self.master[name]) for name in self.trained}
        # PyTorch's fused kernel counts for each parameter, on its device; one copy a step would wait for it.
        self.counted = {name: torch.zeros((), device=p.device) for name, p in self.trained.items()}
        groups: dict[tuple[float, float], list[str]] = {}
        for name, p in self.trained.items():
            scale = 1.0 if lr_scale is None else lr_scale(name)
            groups.setdefault((scale, decay if _decays(name, p) else 0.0), []).append(name)
        self.groups = [(names, scale, decay) for (scale, decay), names in groups.items()]

    def step(self, lr: float, clip: float | None = None) -> Tensor | None:
        """One update from the gradients of the working weights, which it clears.

        Args:
            lr: learning rate.
            clip: largest L2 norm of all gradients together; None: no clipping.

        Returns:
            The norm before clipping, where it was computed.
        """
        self.steps += 1
        gradients = {name: p.grad.contiguous() for name, p in self.trained.items() if p.grad is not None}
        on_cpu = all(g.device.type == "cpu" for g in gradients.values())
        if on_cpu and native.available():
            norm = self._step_native(gradients, lr, clip)
        else:
            norm = self._step_torch(gradients, lr, clip)
        for p in self.trained.values():
            p.grad = None
        return norm

    def _step_native(self, gradients: Mapping[str, Tensor], lr: float, clip: float | None) -> Tensor | None:
        norm, factor = None, 1.0
        if clip is not None:
            total = native.gradient_norm(list(gradients.values()))
            norm, factor = torch.tensor(total), min(1.0, clip / (total + 1e-6))
        parameters = [
            native.AdamwParameter(
                gradients[name],
                self.master[name],
                self.first[name],
                self.second[name],
                self.trained[name].detach(),
                lr * scale,
                decay,
            )
            for names, scale, decay in self.groups
            for name in names
            if name in gradients
        ]
        native.adamw_step(
            parameters,
            step=self.steps,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            gradient_scale=factor,
        )
        return norm

    @torch.no_grad()
    def _step_torch(self, gradients: Mapping[str, Tensor], lr: float, clip: float | None) -> Tensor | None:
        wide = {name: g.to(torch.float32) for name, g in gradients.items()}
        norm = None
        if clip is not None and wide:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(wide.values()))))
            torch._foreach_mul_(list(wide.values()), (clip / (norm + 1e-6)).clamp(max=1.0))
        for names, scale, decay in self.groups:
            with_gradient = [n for n in names if n in gradients]
            masters = [self.master[n] for n in with_gradient]
            adamw(
                masters,
                [wide[n] for n in with_gradient],
                [self.first[n] for n in with_gradient],
                [self.second[n] for n in with_gradient],
                [],
                [self.counted[n] for n in with_gradient],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=lr * scale,
                weight_decay=decay,
                eps=self.eps,
                maximize=False,
            )
            # A parameter without a gradient counts the step too, as the native kernel and a resumed run do.
            if without := [self.counted[n] for n in names if n not in gradients]:
                torch._foreach_add_(without, 1)
            if self.dtype != torch.float32:
                torch._foreach_copy_([self.trained[n].detach() for n in with_gradient], masters)
        return norm

    def weights(self) -> dict[str, Tensor]:
        """The float32 state dict of the module."""
        return {name: self.master.get(name, value) for name, value in self.module.state_dict().items()}

    def finite(self) -> bool:
        """Whether every weight is a number; waits for the device."""
        return bool(torch.stack([torch.isfinite(master).all() for master in self.master.values()]).all())

    def state_dict(self) -> dict[str, Tensor]:
        """The moments, by `first.NAME` and `second.NAME`, and the number of steps."""
        moments = {f"first.{n}": t for n, t in self.first.items()} | {
            f"second.{n}": t for n, t in self.second.items()
        }
        return {**moments, "steps": torch.tensor(self.steps)}

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
        """Continue from `weights()` and `state_dict()` of an equal model."""
        load_into(self.module, dict(weights), origin)
        own = self.state_dict()
        for name, value in own.items():
            if name not in state:
                raise CheckpointError(f"the optimiser's state of {origin} lacks {name!r}")
            if state[name].shape != value.shape:
                raise CheckpointError(
                    f"the optimiser's state of {origin} is of another architecture: {name!r} is "
                    f"{tuple(state[name].shape)} there, {tuple(value.shape)} here"
                )
        for name, master in self.master.items():
            master.copy_(weights[name])
        for name in self.trained:
            self.first[name].copy_(state[f"first.{name}"])
            self.second[name].copy_(state[f"second.{name}"])
        self.steps = int(state["steps"])
        for count in self.counted.values():
            count.fill_(self.steps)


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Let a module work in a type, in place; batch norms stay as they are.

    In bf16 a running mean that moves by a tenth of the way would soon not move at all. PyTorch's batch norm
    takes bf16 values beside its own float32.
    """
    kept = set(batch_norms(module))
    for part in module.modules():
        if part not in kept:
            part._apply(lambda t: t.to(dtype) if t.is_floating_point() else t, recurse=False)


def _decays(name: str, parameter: Tensor) -> bool:
    return parameter.dim() > 1 and not name.endswith(
        ("pos_embed", "cls_token", "mask_token", "embed.start", "relative_position_bias_table")
    )
