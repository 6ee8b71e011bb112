"""`accelerate` beside what else is done to a model: compiled, checkpointed, distributed, adapted."""

import copy

import pytest
import torch
from small_models import assert_alike, step_of
from torch import nn
from torch._dynamo.testing import CompileCounter

import imagen_fast


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ViTMAE", "accelerated"),
        ("ImageGPT", "accelerated"),
        ("ViTMAE", "compiled"),
        ("timm Eva", "compiled"),
    ],
)
def test_compiled_before_or_after(name, first):
    torch.compiler.reset()
    step = step_of(name)
    theirs = step.gradients()
    if first == "accelerated":
        made = imagen_fast.accelerate(step.model, trial=False)
        compiled = torch.compile(step.model, backend="aot_eager")
    else:
        compiled = torch.compile(step.model, backend="aot_eager")
        assert_alike(_plain_names(step.gradients(compiled)), theirs)
        made = imagen_fast.accelerate(compiled, trial=False)
    assert made.swapped
    assert_alike(_plain_names(step.gradients(compiled)), theirs)
    made.undo()
    assert_alike(_plain_names(step.gradients(compiled)), theirs)


@pytest.mark.parametrize("name", ["ViT", "timm ViT", "timm Eva"])
def test_it_brings_no_graph_break(name):
    torch.compiler.reset()
    step = step_of(name)
    imagen_fast.accelerate(step.model, trial=False)
    theirs = step.gradients()
    compiled = torch.compile(step.model, backend="aot_eager", fullgraph=True)
    assert_alike(_plain_names(step.gradients(compiled)), theirs)


@pytest.mark.parametrize(("name", "side"), [("ViT", 32), ("ViTMAE", 32), ("timm ViT", 64), ("timm Eva", 56)])
def test_batches_of_any_size_take_no_more_graphs_than_the_originals(name, side):
    def graphs():
        torch.compiler.reset()
        counter = CompileCounter()
        compiled = torch.compile(step.model, backend=counter)
        for batch in range(2, 12):
            compiled(torch.randn(batch, 3, side, side))
        return counter.frame_count

    step = step_of(name)
    theirs = graphs()
    imagen_fast.accelerate(step.model, trial=False)
    assert graphs() <= theirs


def _plain_names(given):
    loss, gradients = given
    return loss, {name.removeprefix("_orig_mod."): gradient for name, gradient in gradients.items()}


def test_a_projection_with_an_adapter_is_told():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(step_of("ViT").model, peft.LoraConfig(target_modules=["projection"]))
    (left,) = (left for left in imagen_fast.accelerate(model, trial=False).left if left.kind == "embedding")
    assert left.why == "an adapter is around its projection"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["ViTMAE", "ViT", "timm ViT"])
def test_checkpointed(name, dtype):
    step = step_of(name)
    imagen_fast.accelerate(step.model, trial=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        theirs = step.gradients()
        if name.startswith("timm"):
            step.model.set_grad_checkpointing()
        else:
            step.model.gradient_checkpointing_enable({"use_reentrant": False})
        again = step.gradients()
    assert torch.equal(again[0], theirs[0])
    assert_alike(again, theirs, bound=1e-5)


@pytest.fixture
def one_process(tmp_path):
    """A group of one process: what wraps a model behaves as in one of many."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("first", ["accelerated", "wrapped"])
def test_ddp(one_process, first):
    step = step_of("ViTMAE")
    theirs = step.gradients()
    if first == "accelerated":
        imagen_fast.accelerate(step.model, trial=False)
    wrapped = nn.parallel.DistributedDataParallel(step.model)
    if first == "wrapped":
        assert imagen_fast.accelerate(wrapped, trial=False).swapped
    loss, gradients = step.gradients(wrapped)
    assert_alike((loss, {n.removeprefix("module."): g for n, g in gradients.items()}), theirs)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("first", ["accelerated", "sharded"])
@pytest.mark.parametrize("name", ["ViTMAE", "timm ViT"])
def test_fsdp2(one_process, name, first, apart):
    """`apart`: every linear layer is gathered by itself, else block by block."""
    from torch.distributed.fsdp import fully_shard

    step = step_of(name)
    with torch.autocast("cpu", torch.bfloat16):
        exact = step.gradients()
    plain = copy.deepcopy(step.model)

    def shard(model):
        for module in list(model.modules()):
            if isinstance(module, nn.Linear) if apart else type(module).__name__ in ("ViTMAELayer", "Block"):
                fully_shard(module)
        fully_shard(model)

    if first == "accelerated":
        made = imagen_fast.accelerate(step.model, trial=False)
        shard(step.model)
    else:
        shard(step.model)
        made = imagen_fast.accelerate(step.model, trial=False)
    assert "attention" in {swapped.kind for swapped in made.swapped}
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradients = step.gradients()
    whole = {name: gradient.full_tensor() for name, gradient in gradients.items()}
    assert_alike((loss, whole), exact, bound=0.03)
    made.undo()
    ours = [type(module).__mro__ for module in step.model.modules()]
    assert not any("imagen_fast" in cls.__module__ for classes in ours for cls in classes)
    with torch.autocast("cpu", torch.bfloat16):
        again, _ = step.gradients()
        wanted, _ = step.gradients(plain)
    torch.testing.assert_close(again, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["Lora", "AdaLora"])
@pytest.mark.parametrize("first", ["accelerated", "adapted"])
@pytest.mark.parametrize("name", ["ViT", "timm ViT"])
def test_adapters_are_respected(kind, first, name):
    peft = pytest.importorskip("peft")
    targets = r".*\.attn\.(qkv|proj)" if name.startswith("timm") else r".*\.(q_proj|v_proj|query|value)"
    sizes = {"r": 4} if kind == "Lora" else {"total_step": 10, "init_r": 4, "target_r": 2}
    config = getattr(peft, f"{kind}Config")(target_modules=targets, lora_alpha=8, **sizes)

    def adapted(model):
        torch.manual_seed(5)
        model = peft.get_peft_model(model, config)
        with torch.no_grad():
            for n, p in model.named_parameters():
                if "lora_" in n:
                    p.normal_(std=0.1)
        return model

    def loss_and_gradients(step, model):
        loss, gradients = step.gradients(model)
        return loss, {n: g for n, g in gradients.items() if "lora_" in n}

    step = step_of(name)
    theirs = loss_and_gradients(step, adapted(step.model))
    assert theirs[1]
    for dtype in (torch.float32, torch.bfloat16):
        step = step_of(name)
        if first == "accelerated":
            made = imagen_fast.accelerate(step.model, trial=False)
            model = adapted(step.model)
        else:
            model = adapted(step.model)
            made = imagen_fast.accelerate(model, trial=False)
        assert "attention" in {swapped.kind for swapped in made.swapped}
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            ours = loss_and_gradients(step, model)
        assert_alike(ours, theirs, bound=1e-5 if dtype == torch.float32 else 0.05)
