"""The least work of a pass, beside sums by hand and what PyTorch's counter finds in a step of ours."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from imagen_fast.benchmarks import classification, mae, pixel_model, work
from imagen_fast.kernels.cost import Work
from imagen_fast.models import DecoderConfig, ViTConfig

CPU = torch.device("cpu")
ENCODER = ViTConfig(image_size=(64, 48), patch_size=8, embed_dim=64, depth=2, heads=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_attention_by_hand():
    """Two queries that each see three keys, of width 4 and two bytes a number."""
    forward = work.attention(2, 3, 6, 4, 2, backward=False)
    # q and out, k and v; two products of six pairs.
    assert forward == Work((2 * 2 + 2 * 3) * 4 * 2, 2 * 6 * (4 + 4), 6)
    both = work.attention(2, 3, 6, 4, 2, backward=True)
    # Four gradients more; d_v, dp, d_q and d_k: four products more, and no exponential.
    assert both == Work(2 * forward.bytes, 2 * 6 * 6 * 4, 6)


def test_linear_cross_entropy_by_hand():
    """Five rows of width 4 to three levels, two bytes a number."""
    assert work.linear_cross_entropy(5, 4, 3, 2, backward=False) == Work(
        (5 * 4 + 3 * 4) * 2 + 5 * 8, 2 * 5 * 4 * 3, 15
    )
    assert work.linear_cross_entropy(5, 4, 3, 2, backward=True) == Work(
        2 * (5 * 4 + 3 * 4) * 2 + 5 * 8, 3 * 2 * 5 * 4 * 3, 15
    )


def counted(step):
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def made_again(layers, images):
    """The logits, of which our backward and everybody's fast ones make one product a second time."""
    return images * sum(layer.operations // 2 for layer in layers if isinstance(layer, work.Attention))


@pytest.mark.parametrize("kind", ["full", "cross"])
def test_a_step_of_a_masked_autoencoder_does_what_is_counted(kind):
    workload = mae.Workload(ENCODER, 3, CPU, 3)
    visible = ENCODER.patches - workload.hidden
    predicted = workload.hidden if kind == "full" else 9
    decoder = DecoderConfig(kind, 32, 2, 2)
    model = mae.random_model(ENCODER, decoder)
    found = counted(mae.training_step(workload, model, torch.float32, predicted / workload.hidden))
    layers = work.masked_autoencoder(ENCODER, decoder, visible, predicted)
    least = workload.work(decoder, predicted)
    # Queries of what is not predicted come out of the last block's fused projection, and nobody reads them.
    fused = 3 * 3 * 2 * (1 + visible) * 32 * 32 if kind == "full" else 0
    assert found == least.operations + made_again(layers, 3) + fused
    matrices = (p for p in model.parameters() if p.dim() in (2, 4) and p.requires_grad)
    trained = sum(p.numel() for p in matrices)
    assert least.bytes == 24 * trained + 3 * 64 * 48 * 3 * 4
    pairs = 2 * 2 * (1 + visible) ** 2  # of the encoder, whose layers and heads are two
    tokens = 1 + visible + (predicted if kind == "full" else 0)
    layers_of_all = 1 if kind == "full" else 0
    decoded = 2 * (layers_of_all * tokens**2 + (2 - layers_of_all) * predicted * tokens)
    assert least.exponentials == 3 * (pairs + decoded)


def test_a_step_of_a_pixel_transformer_does_what_is_counted():
    config = pixel_model.imagegpt_config(32, 2, 2, side=4, colours=16)
    workload = pixel_model.Workload(config, 3, CPU)
    found = counted(pixel_model.training_step(workload, pixel_model.random_model(config), torch.float32))
    layers = work.pixel_transformer(config)
    assert found == workload.work().operations + made_again(layers, 3)
    # Of two heads and layers the triangle of 16 pixels, and the logits.
    assert workload.work().exponentials == 3 * (2 * 2 * 16 * 17 // 2 + 16 * 16)


def test_a_step_of_a_classifier_does_what_is_counted():
    timm_vit = pytest.importorskip("imagen_fast.benchmarks.peers.timm_vit", exc_type=ImportError)
    workload = classification.Workload(ENCODER, 3, CPU, classes=10)
    model = timm_vit.random_model(ENCODER, 10)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = counted(timm_vit.training_step(model, workload.data, torch.float32))
    # Of the patches in the last block only keys and values count; theirs makes all the rest of them too.
    unread, width = ENCODER.patches, ENCODER.embed_dim
    more = 3 * (2 * unread * (width * width * (2 + 2 * 4)) + 4 * unread * (1 + unread) * width)
    assert found == workload.work().operations + 3 * more
    pairs = (1 + unread) ** 2 + (1 + unread)
    assert workload.work().exponentials == 3 * (2 * pairs + 10)
    trained = sum(p.numel() for p in model.parameters() if p.dim() in (2, 4))
    assert workload.work().bytes == 24 * trained + 3 * (64 * 48 * 3 * 4 + 8)
