"""A kernel repository loaded where imagen_fast is not to be had, and what it gives compared with PyTorch's.

python -P kernel_alone.py REPOSITORY [BACKEND]
"""

import sys
from pathlib import Path

REPOSITORY, BACKEND = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None


class NoImagenFast:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "imagen_fast":
            raise ModuleNotFoundError(f"{name} is not here, for this test")


sys.meta_path.insert(0, NoImagenFast())

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import kernels  # noqa: E402

ops = kernels.get_local_kernel(REPOSITORY)


def compare(ours, theirs, *tensors):
    """Values, and gradients of all tensors."""
    outcomes = []
    for call in (ours, theirs):
        leaves = [x.clone().requires_grad_() for x in tensors]
        out = call(*leaves)
        incoming = torch.linspace(0.3, 1.7, out.numel()).view(out.shape)
        outcomes.append([out, *torch.autograd.grad(out, leaves, incoming)])
    torch.testing.assert_close(*outcomes)


def attention(mask):
    def call(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    return call


torch.manual_seed(0)
grid, qkv = (3, 4), torch.randn(3, 2, 12, 2, 32).unbind()
hidden = torch.arange(24).view(2, 12) % 3 == 0
seen = ops.Quadrant().window(grid).visible()

among_patches = ops.modules.MaskedPatchAttention(backend=BACKEND)
compare(lambda *x: among_patches(*x, ops.Visible.in_place(hidden)), attention(~hidden[:, None, None]), *qkv)
compare(ops.modules.CausalPixelAttention(grid, ops.Quadrant(), backend=BACKEND), attention(seen), *qkv)
compare(
    ops.modules.CausalPixelSoftmax(grid, ops.Quadrant(), backend=BACKEND),
    lambda scores: scores.masked_fill(~seen, float("-inf")).softmax(-1),
    torch.randn(2, 12, 12),
)

target = torch.randint(0, 9, (2, 12))
compare(
    lambda hidden, weight: ops.pixel_cross_entropy(hidden, weight, target, backend=BACKEND),
    lambda hidden, weight: functional.cross_entropy((hidden @ weight.t()).flatten(0, 1), target.flatten()),
    torch.randn(2, 12, 32),
    torch.randn(9, 32),
)


class Loss(nn.Module):
    """The mean squared error of hidden patches, as anybody would write it."""

    normalise = False
    eps = 0.0

    def forward(self, prediction, image, hidden=None):
        patches = image.reshape(2, 3, 3, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2)
        return ((prediction - patches) ** 2).mean(-1)[hidden].mean()


image = torch.randn(2, 3, 6, 8)
error = ops.modules.MaskedPixelMSE(normalise=False, backend=BACKEND)
compare(
    lambda prediction: error(prediction, image, hidden),
    lambda prediction: Loss()(prediction, image, hidden),
    torch.randn(2, 12, 12),
)

if BACKEND is None:
    kernels.replace_kernel_forward_from_hub(nn.LayerNorm, "LayerNorm")
    kernels.replace_kernel_forward_from_hub(Loss, "MaskedPixelMSE")
    mapping = {
        name: {"cpu": kernels.LocalLayerRepository(REPOSITORY, layer_name=name)}
        for name in ("LayerNorm", "MaskedPixelMSE")
    }

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.project, self.loss = nn.LayerNorm(12), nn.Linear(12, 12), Loss()

        def forward(self, x):
            return self.loss(self.project(self.norm(x)), image, hidden)

    plain, x = Model(), torch.randn(2, 12, 12)
    ours = Model()
    ours.load_state_dict(plain.state_dict())
    for mode in (kernels.Mode.TRAINING | kernels.Mode.TORCH_COMPILE, kernels.Mode.INFERENCE):
        with kernels.use_kernel_mapping(mapping):
            kernels.kernelize(ours, mode=mode, device="cpu", use_fallback=False)
        assert ours.norm.forward.__func__ is ops.layers.LayerNorm.forward
        assert ours.loss.forward.__func__ is ops.layers.MaskedPixelMSE.forward
        compare(ours, plain, x)
        compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
        compare(compiled, plain, x)
        torch.testing.assert_close(
            torch.autograd.grad(compiled(x), ours.parameters()),
            torch.autograd.grad(plain(x), plain.parameters()),
        )

assert not [name for name in sys.modules if name.split(".")[0] == "imagen_fast"]
assert not list(torch.ops.imagen_fast), "an operator was registered under the name of the package"
(kernel,) = kernels.get_loaded_kernels()
assert list(getattr(torch.ops, kernel.metadata.id)), "no operator was registered under the name of the build"
