"""The main job on a GPU: training there, resuming, and one graph under torch.compile."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import native, ops
from imagen_fast.data.masks import masks_from_noise
from imagen_fast.models import DecoderConfig, MaskedAutoencoder, vit_config
from imagen_fast.ops import Visible
from imagen_fast.tasks.doctor import examine
from imagen_fast.tasks.pretrain import pretrain
from imagen_fast.tasks.settings import PretrainSettings
from imagen_fast.train import load_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def settings(folder, steps, **changes):
    return PretrainSettings(
        data="digits",
        out=str(folder),
        steps=steps,
        batch_size=64,
        device="cuda",
        checkpoint_every=10,
        tensorboard=False,
        evaluate=False,
        quiet=True,
        **changes,
    )


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_pretraining_resumes_where_it_stood(tmp_path, precision):
    pretrain(settings(tmp_path / "straight", 20, precision=precision))
    pretrain(settings(tmp_path / "broken", 20, precision=precision))
    newest = tmp_path / "broken" / "checkpoints" / "step-00000020"
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    pretrain(settings(tmp_path / "broken", 20, precision=precision, resume=True))
    straight, resumed = (load_checkpoint(tmp_path / name).weights for name in ("straight", "broken"))
    for name, value in straight.items():
        torch.testing.assert_close(resumed[name], value, msg=name)


@pytest.mark.parametrize("kind", ["full", "cross"])
def test_one_graph_under_compile(kind):
    torch.manual_seed(0)
    encoder = vit_config("tiny", image_size=(64, 64), patch_size=8, depth=2)
    model = MaskedAutoencoder(encoder, DecoderConfig(kind, 64, 2, 2)).cuda().bfloat16()
    image = torch.randn(4, 3, 64, 64, device="cuda")
    masks = masks_from_noise(torch.rand(4, encoder.patches, device="cuda"), 0.75)

    def loss():
        return ops.masked_pixel_mse(model(image, *masks), image, masks.hidden)

    eager = loss()
    eager.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    compiled = torch.compile(loss, fullgraph=True)()
    compiled.backward()
    torch.testing.assert_close(compiled, eager, rtol=2e-2, atol=2e-3)
    again = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(again, gradients, strict=True):
        assert (a.float() - b.float()).norm() <= 0.1 * b.float().norm() + 1e-6


@pytest.mark.parametrize("rows", ["all", "visible", "hidden"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_public_operation_takes_triton_and_equals_its_definition(rows, dtype, error_bound):
    hidden = torch.rand(5, 50, device="cuda") < 0.6
    context = Visible.in_place(hidden, rows)
    q, k, v = torch.randn(5, 50, 3, 2, 64, device="cuda").to(dtype).unbind(2)
    exact = ops.masked_patch_attention(q.double(), k.double(), v.double(), context, backend="reference")
    peer = ops.masked_patch_attention(q, k, v, context, backend="reference")
    ours = ops.masked_patch_attention(q, k, v, context)
    assert torch.equal(ours, ops.masked_patch_attention(q, k, v, context, backend="triton"))
    error_bound(ours, exact, peer)


def test_doctor_says_what_decodes():
    told = examine()["machine"]["decoding_on_gpu"]
    if native.no_gpu_decoder_because() is None:
        assert told.startswith(("nvJPEG, on the JPEG engine", "nvJPEG, without a JPEG engine"))
    else:
        assert told.startswith("none: ")
