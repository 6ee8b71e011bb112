"""transformers' models with `attn_implementation="imagen_fast"`: the outputs and gradients of `"sdpa"`."""

from __future__ import annotations

import sys

import pytest
import torch

from imagen_fast import native

transformers = pytest.importorskip("transformers")

from imagen_fast.integrations import sdpa  # noqa: E402
from imagen_fast.integrations import transformers_attention as ours  # noqa: E402

pytestmark = [
    pytest.mark.skipif(
        not native.attention_pays(torch.float32), reason="PyTorch's attention serves all on this processor"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LAYERS = 2
SEEN = 6  # words of the shorter of two texts
SIZES = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 48}
IMAGE = {"image_size": 16, "patch_size": 4}
DECODER = {f"decoder_{name}": value for name, value in (SIZES | {"num_hidden_layers": 1}).items()}
WORDS = SIZES | {"vocab_size": 20}
MODELS = {
    "ViT": ("ViTModel", "ViTConfig", SIZES | IMAGE),
    "ViTMAE": ("ViTMAEForPreTraining", "ViTMAEConfig", SIZES | IMAGE | DECODER),
    "BEiT": ("BeitModel", "BeitConfig", SIZES | IMAGE),
    "BEiT with a bias": ("BeitModel", "BeitConfig", SIZES | IMAGE | {"use_relative_position_bias": True}),
    "DeiT": ("DeiTModel", "DeiTConfig", SIZES | IMAGE),
    "DINOv2": ("Dinov2Model", "Dinov2Config", SIZES | IMAGE),
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", SIZES | IMAGE),
    "SigLIP vision": ("SiglipVisionModel", "SiglipVisionConfig", SIZES | IMAGE),
    "BERT, padded": ("BertModel", "BertConfig", WORDS | {"attention_probs_dropout_prob": 0.0}),
    "causal language": ("LlamaForCausalLM", "LlamaConfig", WORDS | {"num_key_value_heads": 1}),
}
# Causal attention is `sdpa`'s, and so is a learned bias on the CPU.
SERVED = dict.fromkeys(MODELS, LAYERS) | {"ViTMAE": LAYERS + 1, "causal language": 0, "BEiT with a bias": 0}


@pytest.fixture(autouse=True)
def served(monkeypatch):
    """A list that grows with each call that our operation serves."""
    calls = []
    operation = sdpa.masked_patch_attention

    def noted(*args, **kwargs):
        calls.append(None)
        return operation(*args, **kwargs)

    monkeypatch.setattr(sdpa, "masked_patch_attention", noted)
    ours.register_attention()
    return calls


def make(name, implementation="imagen_fast"):
    model, config, sizes = MODELS[name]
    cls = getattr(transformers, model)
    if name.startswith("BEiT") and not hasattr(sys.modules[cls.__module__], "ALL_ATTENTION_FUNCTIONS"):
        pytest.skip("BEiT of this release does not ask the interface")
    torch.manual_seed(0)
    config = getattr(transformers, config)(**sizes)
    return cls._from_config(config, attn_implementation=implementation).train()


def inputs(name):
    draw = torch.Generator().manual_seed(1)
    if name in ("BERT, padded", "causal language"):
        padding = torch.tensor([[1] * 9, [1] * SEEN + [0] * (9 - SEEN)])
        return {"input_ids": torch.randint(0, 20, (2, 9), generator=draw), "attention_mask": padding}
    given = {"pixel_values": torch.randn(2, 3, 16, 16, generator=draw)}
    return given | ({"noise": torch.rand(2, 16, generator=draw)} if name == "ViTMAE" else {})


def step(model, given):
    """The first output that is no loss, and the gradients of the parameters by name."""
    torch.manual_seed(2)
    outputs = model(**given)
    out = outputs.logits if "logits" in outputs else outputs[0]
    # What padding gives, nobody reads.
    out = out[:, :SEEN] if "attention_mask" in given else out
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    model.zero_grad()
    (out * weight).sum().backward()
    return out.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model, other, given):
    (out, gradients), (wanted, others) = step(model, given), step(other, given)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        # To the largest of its tensor: the gradient of a key's bias is zero but for rounding.
        bound = 1e-4 * float(others[name].abs().amax()) if gradient.numel() else 0
        torch.testing.assert_close(gradient, others[name], rtol=1e-3, atol=bound + 1e-5, msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_as_sdpa(name, served):
    model = make(name)
    assert model.config._attn_implementation == "imagen_fast"
    assert_same(model, make(name, "sdpa"), inputs(name))
    assert len(served) == SERVED[name]


@pytest.mark.parametrize("name", ["ViT", "ViTMAE", "causal language"])
def test_set_in_a_live_model(name, served):
    model, other = make(name, "sdpa"), make(name, "sdpa")
    model.set_attn_implementation("imagen_fast")
    assert_same(model, other, inputs(name))
    # The decoder of ViTMAE has a config of its own, which is not told.
    assert len(served) == {"ViT": LAYERS, "ViTMAE": LAYERS, "causal language": 0}[name]
    model.set_attn_implementation("sdpa")
    before = len(served)
    assert torch.equal(step(model, inputs(name))[0], step(other, inputs(name))[0])
    assert len(served) == before


def test_saved_and_loaded(served, tmp_path):
    model = make("ViT")
    model.save_pretrained(tmp_path)
    assert "imagen_fast" not in (tmp_path / "config.json").read_text()
    plain = transformers.ViTModel.from_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="imagen_fast")
    assert (plain.config._attn_implementation, again.config._attn_implementation) == ("sdpa", "imagen_fast")
    assert model.state_dict().keys() == again.state_dict().keys()
    assert_same(again.train(), plain.train(), inputs("ViT"))
    assert len(served) == LAYERS


def test_probabilities_that_are_dropped_are_sdpas(served):
    name = "ViT"
    dropping = SIZES | IMAGE | {"attention_probs_dropout_prob": 0.5}
    models = []
    for implementation in ("imagen_fast", "sdpa"):
        torch.manual_seed(0)
        config = transformers.ViTConfig(**dropping)
        models.append(transformers.ViTModel._from_config(config, attn_implementation=implementation))
    assert torch.equal(step(models[0].train(), inputs(name))[0], step(models[1].train(), inputs(name))[0])
    assert served == []
    assert_same(models[0].eval(), models[1].eval(), inputs(name))
    assert len(served) == LAYERS


def test_a_compiled_model():
    name = "ViT"
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(make(name), fullgraph=True, backend=keep)
    (out, gradients), (wanted, others) = step(compiled, inputs(name)), step(make(name, "sdpa"), inputs(name))
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
    names = [str(node.target) for node in graphs[0].graph.nodes]
    assert sum(name.startswith("imagen_fast.masked_patch_attention") for name in names) == LAYERS
    for key, gradient in others.items():
        torch.testing.assert_close(gradients[f"_orig_mod.{key}"], gradient, rtol=1e-3, atol=1e-4, msg=key)


def test_what_is_not_marked_goes_on_as_before(served):
    model, other = make("ViT", ours.register_beside("sdpa")), make("ViT", "sdpa")
    assert torch.equal(step(model, inputs("ViT"))[0], step(other, inputs("ViT"))[0])
    assert served == []
    for module in model.modules():
        module.imagen_fast_types = frozenset({torch.bfloat16})
    assert torch.equal(step(model, inputs("ViT"))[0], step(other, inputs("ViT"))[0])
    assert served == []
    with torch.autocast("cpu", torch.bfloat16):
        out, wanted = step(model, inputs("ViT"))[0], step(other, inputs("ViT"))[0]
    torch.testing.assert_close(out, wanted, rtol=3e-2, atol=3e-2)
    assert len(served) == LAYERS


class Module(torch.nn.Module):
    """One that does not say whether it is causal."""


def test_a_module_that_does_not_say_is_causal(served):
    q, k, v = torch.randn(3, 2, 2, 9, 16).unbind()
    theirs = ours.sdpa_attention_forward(Module(), q, k, v, None)[0]
    assert torch.equal(ours.attention(Module(), q, k, v, None)[0], theirs)
    assert served == []
    all_seen = ours.attention(Module(), q, k, v, None, is_causal=False)[0]
    torch.testing.assert_close(
        all_seen, ours.sdpa_attention_forward(Module(), q, k, v, None, is_causal=False)[0]
    )
    assert len(served) == 1


@pytest.mark.parametrize("other", [{"position_bias": 0.5}, {"softcap": 3.0}, {"output_attentions": True}])
def test_what_sdpa_adds_or_refuses(other, served):
    if "position_bias" in other:
        if "position_bias" not in ours.sdpa_attention_forward.__code__.co_varnames:
            pytest.skip("sdpa of this release has no position bias")
        other = {"position_bias": torch.randn(1, 2, 9, 9)}
    q, k, v = torch.randn(3, 2, 2, 9, 16).unbind()

    def call(function):
        try:
            return function(Module(), q, k, v, None, is_causal=False, **other)[0]
        except ValueError as error:
            return str(error)

    got, wanted = call(ours.attention), call(ours.sdpa_attention_forward)
    assert got == wanted if isinstance(wanted, str) else torch.equal(got, wanted)
    assert served == []
