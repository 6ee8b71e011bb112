"""transformers' ImageGPT under `accelerate`: its caches, its masks, its fused loss."""

import inspect

import pytest
import torch
from small_models import imagegpt_config

import imagen_fast

transformers = pytest.importorskip("transformers")


def painter(**more):
    torch.manual_seed(0)
    model = transformers.ImageGPTForCausalImageModeling(imagegpt_config(initializer_range=0.5, **more))
    return model.eval()


def draw(model, **more):
    start = torch.full((3, 1), 16)
    return model.generate(start, max_new_tokens=20, do_sample=False, pad_token_id=0, **more)


def test_a_static_cache_draws_what_no_cache_draws():
    model = painter()
    exact = draw(model, use_cache=False)
    wrong = draw(model, cache_implementation="static")
    assert not torch.equal(wrong, exact), "theirs is right by now: say so where it is said that it is not"
    imagen_fast.accelerate(model, trial=False)
    assert torch.equal(draw(model, use_cache=False), exact)
    assert torch.equal(draw(model), exact)
    assert torch.equal(draw(model, cache_implementation="static"), exact)


def test_a_padding_mask_is_kept():
    model, ids = painter(), torch.randint(0, 16, (2, 12))
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, :5] = 0
    theirs = model(input_ids=ids, attention_mask=mask).logits
    imagen_fast.accelerate(model, trial=False)
    ours = model(input_ids=ids, attention_mask=mask).logits
    # The hidden places themselves see nothing: what they say is nobody's.
    torch.testing.assert_close(ours[:, 5:], theirs[:, 5:], rtol=1e-4, atol=1e-4)


def test_several_tokens_after_others():
    model, ids = painter(), torch.randint(0, 16, (2, 12))
    whole = model(input_ids=ids).logits
    imagen_fast.accelerate(model, trial=False)
    first = model(input_ids=ids[:, :7], use_cache=True)
    rest = model(input_ids=ids[:, 7:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"])
def test_options_of_its_attention(option):
    model, ids = painter(**{option: True}), torch.randint(0, 16, (2, 12))
    theirs = model(input_ids=ids).logits
    imagen_fast.accelerate(model, trial=False)
    torch.testing.assert_close(model(input_ids=ids).logits, theirs, rtol=1e-4, atol=1e-4)


def test_what_the_fused_loss_leaves_out_and_when():
    model, ids = painter(), torch.randint(0, 16, (2, 12))
    labels = ids.masked_fill(torch.rand(2, 12) < 0.3, -100)
    theirs = model(input_ids=ids, labels=labels)
    imagen_fast.accelerate(model, trial=False)
    assert model(input_ids=ids, labels=labels).logits is not None
    trained = model.train()(input_ids=ids, labels=labels)
    torch.testing.assert_close(trained.loss, theirs.loss)
    assert trained.logits is None
    as_tuple = model(input_ids=ids, labels=labels, return_dict=False)
    torch.testing.assert_close(as_tuple[0], theirs.loss)


def test_dropped_probabilities_stay_theirs_and_are_told():
    model, ids = painter(attn_pdrop=0.5).train(), torch.randint(0, 16, (2, 12))

    def loss():
        torch.manual_seed(1)
        return model(input_ids=ids, labels=ids).loss

    theirs = loss()
    made = imagen_fast.accelerate(model, trial=False)
    assert "not in training, where it drops probabilities (attn_pdrop=0.5)" in str(made)
    torch.testing.assert_close(loss(), theirs)


def test_probabilities_that_are_asked_for():
    model, ids = painter(), torch.randint(0, 16, (2, 12))
    theirs = model(input_ids=ids, output_attentions=True).attentions
    imagen_fast.accelerate(model, trial=False)
    for ours, exact in zip(model(input_ids=ids, output_attentions=True).attentions, theirs, strict=True):
        torch.testing.assert_close(ours, exact)


def test_an_adapter_or_a_hook_on_the_head_is_respected():
    peft = pytest.importorskip("peft")
    model, ids = painter().train(), torch.randint(0, 16, (2, 12))
    imagen_fast.accelerate(model, trial=False)
    calls = []
    handle = model.lm_head.register_forward_hook(lambda *args: calls.append(1))
    model(input_ids=ids, labels=ids)
    assert calls
    handle.remove()
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["lm_head"], init_lora_weights=False))
    adapted(input_ids=ids, labels=ids).loss.backward()
    gradients = [p.grad for n, p in adapted.named_parameters() if "lora_" in n]
    assert gradients
    assert all(gradient is not None and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("hang", ["backward hook", "backward pre-hook", "forward of its own"])
def test_whatever_is_hung_on_the_head_runs(hang):
    model, ids, calls = painter().train(), torch.randint(0, 16, (2, 12)), []
    imagen_fast.accelerate(model, trial=False)
    head = model.lm_head
    if hang == "backward hook":
        head.register_full_backward_hook(lambda *call: calls.append(1))
    elif hang == "backward pre-hook":
        head.register_full_backward_pre_hook(lambda *call: calls.append(1))
    else:
        plain = head.forward
        head.forward = lambda x: calls.append(1) or plain(x)  # as Accelerate's hooks are
    model(input_ids=ids, labels=ids).loss.backward()
    assert calls


def test_the_signature_is_theirs_for_a_trainer_to_read():
    model = painter()
    theirs = list(inspect.signature(model.forward).parameters)
    imagen_fast.accelerate(model, trial=False)
    assert list(inspect.signature(model.forward).parameters) == theirs


def test_a_config_that_asks_for_tuples():
    model, ids = painter(return_dict=False).train(), torch.randint(0, 16, (2, 12))
    theirs = model(input_ids=ids, labels=ids)
    imagen_fast.accelerate(model, trial=False)
    ours = model(input_ids=ids, labels=ids)
    assert isinstance(ours, tuple)
    torch.testing.assert_close(ours[0], theirs[0])
