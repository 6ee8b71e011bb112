"""Each operation as a module: what its function gives, whatever a model may be asked to do."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from imagen_fast import ops
from imagen_fast.errors import InvalidInput
from imagen_fast.ops import functional, layers, modules

BATCH, TOKENS, HEADS, WIDTH, LEVELS = 2, 12, 2, 8, 9
GRID = (3, 4)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def hidden():
    return torch.arange(BATCH * TOKENS).view(BATCH, TOKENS) % 3 == 0


def heads():
    return draw(3, BATCH, TOKENS, HEADS, WIDTH).unbind()


def rows(outputs):
    target = torch.arange(BATCH * TOKENS).view(BATCH, TOKENS) % LEVELS
    return draw(BATCH, TOKENS, WIDTH), draw(outputs, WIDTH), target, draw(outputs)


ROTARY = ops.Rotary.axial(GRID, WIDTH, prefix=0)

# The options that a module is made with, none of them its default, and what a call is given: by place, and
# what the function takes by name only.
CASES = {
    "MaskedPatchAttention": (
        {"scale": 0.3, "backend": "reference"},
        (*heads(), ops.Visible.in_place(hidden())),
        {"rotary": ROTARY, "bias": draw(HEADS, TOKENS, TOKENS)},
    ),
    "CausalPixelAttention": (
        {"grid": GRID, "context": ops.Quadrant(prefix=2), "scale": 0.3, "backend": "reference"},
        heads(),
        {},
    ),
    "CausalPixelSoftmax": (
        {"grid": GRID, "context": ops.Neighbourhood(1, "raster"), "backend": "reference"},
        (draw(BATCH, TOKENS, TOKENS),),
        {},
    ),
    "PixelCrossEntropy": (
        {
            "shift": 1,
            "ignore_index": 3,
            "label_smoothing": 0.1,
            "z_loss": 0.01,
            "sigma": 0.5,
            "reduction": "sum",
            "backend": "reference",
        },
        rows(LEVELS),
        {"keep": hidden()},
    ),
    "PixelLogisticMixture": (
        {"levels": LEVELS, "shift": 1, "ignore_index": 3, "reduction": "none", "backend": "reference"},
        rows(6),
        {"keep": hidden()},
    ),
    "MaskedPixelMSE": (
        {"normalise": False, "eps": 1e-3, "backend": "reference"},
        (draw(BATCH, TOKENS, 12), draw(BATCH, 3, 6, 8), hidden()),
        {},
    ),
}
FUNCTIONS = {
    "MaskedPatchAttention": functional.masked_patch_attention,
    "CausalPixelAttention": functional.causal_pixel_attention,
    "CausalPixelSoftmax": functional.causal_pixel_softmax,
    "PixelCrossEntropy": functional.pixel_cross_entropy,
    "PixelLogisticMixture": functional.pixel_logistic_mixture,
    "MaskedPixelMSE": functional.masked_pixel_mse,
}
NORM_OPTIONS = ({}, {"elementwise_affine": False}, {"normalized_shape": (TOKENS, WIDTH)})
NORMS = ("LayerNorm", "RMSNorm", "GELU", "QuickGELU")


def outcome(call, tensors, more):
    """What is returned, then the gradients of all that can have one."""

    def leaf(x):
        return x.detach().clone().requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x

    tensors, more = [leaf(x) for x in tensors], {name: leaf(x) for name, x in more.items()}
    out = call(*tensors, **more)
    leaves = [x for x in (*tensors, *more.values()) if torch.is_tensor(x) and x.requires_grad]
    incoming = torch.linspace(0.3, 1.7, out.numel()).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, incoming)]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(params=CASES)
def case(request):
    """A module, the function of the same name with its options, and the arguments of a call."""
    options, tensors, more = CASES[request.param]
    function = FUNCTIONS[request.param]

    def with_options(*tensors, **more):
        return function(*tensors, **options, **more)

    return getattr(modules, request.param)(**options), with_options, tensors, more


def test_there_is_one_for_each_operation():
    assert set(modules.__all__) == {*CASES, *NORMS}
    assert {function.__name__ for function in FUNCTIONS.values()} == set(functional.__all__)


@pytest.mark.parametrize("name", CASES)
def test_no_option_of_the_function_is_dropped(name):
    taken = set(inspect.signature(FUNCTIONS[name]).parameters)
    options = set(inspect.signature(getattr(modules, name)).parameters)
    assert options | set(inspect.signature(getattr(modules, name).forward).parameters) - {"self"} == taken
    assert options == CASES[name][0].keys()
    for option, parameter in inspect.signature(getattr(modules, name)).parameters.items():
        assert parameter.default == inspect.signature(FUNCTIONS[name]).parameters[option].default


def test_a_subclass_with_options_of_its_own_is_printed():
    class Attention(modules.MaskedPatchAttention):
        def __init__(self, dim):
            super().__init__(scale=0.5)

    assert "Attention()" in repr(Attention(8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_of_an_rms_norm_serves_modules_of_transformers(dtype):
    class TheirRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.rand(WIDTH).to(dtype)), 1e-5

    module, x = TheirRMSNorm(), torch.randn(3, WIDTH).to(dtype)
    found = layers.RMSNorm.forward(module, x)
    wanted = torch.nn.functional.rms_norm(x.float(), (WIDTH,), module.weight.float(), 1e-5)
    torch.testing.assert_close(found.float(), wanted, rtol=1e-2, atol=1e-2)


def test_norms_of_no_dimension_are_explained_by_pytorch():
    for norm in (modules.LayerNorm(4), modules.RMSNorm(4, eps=1e-6)):
        with pytest.raises(RuntimeError, match="normalized_shape"):
            norm.bfloat16()(torch.tensor(1.0).bfloat16())


def test_it_computes_what_its_function_does(case):
    module, function, tensors, more = case
    assert equal(outcome(module, tensors, more), outcome(function, tensors, more))


def test_one_graph(case):
    module, _, tensors, more = case
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert equal(outcome(compiled, tensors, more), outcome(module, tensors, more))


def test_copies_and_pickles_keep_the_options_and_the_state_dict_is_empty(case):
    module, _, tensors, more = case
    assert module.state_dict() == {}
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(other) == repr(module)
        assert torch.equal(other(*tensors, **more), module(*tensors, **more))


def test_the_fast_back_end_serves_unless_another_is_forced():
    prediction, image, mask = CASES["MaskedPixelMSE"][1]
    with ops.use_backend("reference"):
        expected = modules.MaskedPixelMSE()(prediction, image, mask)
    torch.testing.assert_close(modules.MaskedPixelMSE()(prediction, image, mask), expected)
    with pytest.raises(InvalidInput):
        modules.MaskedPixelMSE(backend="nonsense")(prediction, image, mask)


def test_what_is_printed_are_the_options_given():
    assert repr(modules.PixelCrossEntropy(sigma=2.0)) == "PixelCrossEntropy(sigma=2.0)"
    assert repr(modules.CausalPixelSoftmax(GRID, ops.Raster())) == (
        "CausalPixelSoftmax(grid=(3, 4), context=Raster(prefix=0))"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"elementwise_affine": False}, {"normalized_shape": (TOKENS, WIDTH)}],
    ids=str,
)
def test_layer_norm_takes_what_pytorchs_takes(options, dtype):
    options = {"normalized_shape": WIDTH, "eps": 1e-3} | options
    ours, theirs = (kind(**options).to(dtype) for kind in (modules.LayerNorm, nn.LayerNorm))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = draw(BATCH, TOKENS, WIDTH).to(dtype)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 1e-3}, {"elementwise_affine": False}, {"normalized_shape": (TOKENS, WIDTH)}],
    ids=str,
)
def test_rms_norm_takes_what_pytorchs_takes(options, dtype):
    options = {"normalized_shape": WIDTH} | options
    ours, theirs = (kind(**options).to(dtype) for kind in (modules.RMSNorm, nn.RMSNorm))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = draw(BATCH, TOKENS, WIDTH).to(dtype)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", modules.__all__)
def test_a_layer_has_nothing_but_a_forward(name):
    """What `kernelize` demands of one."""
    layer = getattr(layers, name)
    assert layer.__init__ is nn.Module.__init__
    assert {"can_torch_compile"} == {x for x, _ in inspect.getmembers(layer)} - set(dir(nn.Module))
    assert getattr(modules, name).forward is layer.forward
