from __future__ import annotations

import pytest
import torch
from torch import nn

from imagen_fast import native
from imagen_fast.errors import CheckpointError
from imagen_fast.train import MasterAdamW


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(17, 9)
        self.norm = nn.LayerNorm(9)
        self.pos_embed = nn.Parameter(torch.randn(1, 3, 9), requires_grad=False)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 9))

    def forward(self, x):
        return self.norm(self.fc(x)) + self.cls_token[0] + self.pos_embed[0, 0]


@pytest.fixture(params=["native", "pytorch"])
def way(request, monkeypatch):
    if request.param == "pytorch":
        monkeypatch.setattr(native, "available", lambda: False)
    return request.param


def test_float32_equals_torch_adamw(way):
    torch.manual_seed(0)
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    decayed, others = [theirs.fc.weight], [theirs.fc.bias, *theirs.norm.parameters(), theirs.cls_token]
    peer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    optimizer = MasterAdamW(ours, torch.float32, decay=0.1)
    for step in range(20):
        x = torch.randn(5, 17)
        for model in (ours, theirs):
            model(x).square().sum().backward()
        wanted = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        peer.param_groups[0]["lr"] = peer.param_groups[1]["lr"] = 1e-2 / (step + 1)
        peer.step()
        peer.zero_grad()
        norm = optimizer.step(1e-2 / (step + 1), clip=1.0)
        torch.testing.assert_close(norm, wanted, rtol=1e-5, atol=1e-6)
        assert all(p.grad is None for p in ours.parameters())
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_bf16_weights_are_the_rounded_masters(way):
    model = Small()
    frozen = model.pos_embed.detach().clone()
    optimizer = MasterAdamW(model, torch.bfloat16)
    assert model.fc.weight.dtype == torch.bfloat16
    for _ in range(3):
        model(torch.randn(4, 17, dtype=torch.bfloat16)).square().sum().backward()
        optimizer.step(1e-4)
    for name, p in model.named_parameters():
        assert torch.equal(p.detach(), optimizer.master[name].bfloat16()), name
    weights = optimizer.weights()
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert torch.equal(weights["pos_embed"], frozen)  # not rounded on its way to a checkpoint
    # A step below bf16's resolution is not lost.
    assert not torch.equal(weights["fc.weight"], weights["fc.weight"].bfloat16().float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_continues_exactly(dtype, way):
    torch.manual_seed(0)
    xs = [torch.randn(4, 17, dtype=dtype) for _ in range(6)]
    straight, first = Small(), Small()
    first.load_state_dict(straight.state_dict())

    def train(optimizer, batches):
        for x in batches:
            optimizer.module(x).square().sum().backward()
            optimizer.step(1e-3, clip=1.0)

    one = MasterAdamW(straight, dtype)
    train(one, xs)
    two = MasterAdamW(first, dtype)
    train(two, xs[:3])
    saved = (
        {k: v.clone() for k, v in two.weights().items()},
        {k: v.clone() for k, v in two.state_dict().items()},
    )
    three = MasterAdamW(Small(), dtype)
    three.load(*saved, "the checkpoint")
    train(three, xs[3:])
    assert all(
        torch.equal(a, b) for a, b in zip(one.weights().values(), three.weights().values(), strict=True)
    )


def test_layer_wise_rates_scale_the_step(way):
    torch.manual_seed(0)
    model = Small()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = MasterAdamW(
        model, torch.float32, decay=0.0, lr_scale=lambda name: 0.0 if name.startswith("fc") else 1.0
    )
    model(torch.randn(4, 17)).square().sum().backward()
    optimizer.step(1e-2)
    after = dict(model.named_parameters())
    assert torch.equal(after["fc.weight"], before["fc.weight"])
    assert not torch.equal(after["norm.weight"], before["norm.weight"])


def test_another_architecture_is_one_sentence():
    optimizer = MasterAdamW(Small(), torch.float32)
    with pytest.raises(CheckpointError, match="another architecture: it lacks 'cls_token'"):
        optimizer.load({}, {}, "the checkpoint")


def test_the_state_of_another_model_is_one_sentence():
    optimizer = MasterAdamW(Small(), torch.float32)
    state = optimizer.state_dict()
    state["first.norm.weight"] = torch.zeros(1)  # it would broadcast
    with pytest.raises(CheckpointError, match=r"'first.norm.weight' is \(1,\) there, \(9,\) here"):
        optimizer.load(optimizer.weights(), state, "the checkpoint")


def test_a_parameter_without_gradient_for_a_while_continues_exactly(way):
    """The moments are corrected by the steps of the run, before a checkpoint and after it."""
    torch.manual_seed(0)
    straight, first = Small(), Small()
    first.load_state_dict(straight.state_dict())
    xs = [torch.randn(4, 17) for _ in range(6)]

    def train(optimizer, steps):
        for step in steps:
            small = optimizer.module
            loss = small.fc(xs[step]).square().sum() if step < 2 else small(xs[step]).square().sum()
            loss.backward()
            optimizer.step(1e-2)

    one, two, three = (MasterAdamW(m, torch.float32) for m in (straight, first, Small()))
    train(one, range(6))
    train(two, range(4))
    three.load(*({k: v.clone() for k, v in part.items()} for part in (two.weights(), two.state_dict())), "it")
    train(three, range(4, 6))
    for name, value in one.weights().items():
        assert torch.equal(value, three.weights()[name]), name
