import numpy as np
import pytest
import torch

from imagen_fast.data import blockwise_masks, masks_from_noise, random_masks
from imagen_fast.data.masks import keep_hidden
from imagen_fast.errors import InvalidInput

KINDS = [random_masks, blockwise_masks]


def hidden_grid(masks, grid):
    flat = torch.zeros(len(masks.hidden), grid[0] * grid[1]).scatter_(1, masks.hidden, 1.0)
    return flat.reshape(-1, *grid)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("grid", "ratio"),
    [
        ((14, 14), 0.75),
        ((14, 14), 0.4),
        ((4, 4), 0.62),
        ((1, 2), 0.5),
        ((3, 11), 0.9),
        ((7, 7), 0.02),
        ((5, 5), 0.96),
    ],
)
def test_both_sets_are_sorted_disjoint_and_of_maes_size(kind, grid, ratio):
    patches = grid[0] * grid[1]
    masks = kind(33, grid, ratio, seed=0, step=5)
    assert masks.visible.dtype == masks.hidden.dtype == torch.int64
    assert masks.visible.shape == (33, int(patches * (1 - ratio)))
    assert masks.hidden.shape == (33, patches - int(patches * (1 - ratio)))
    assert (masks.visible.diff(dim=1) > 0).all()
    assert (masks.hidden.diff(dim=1) > 0).all()
    both = torch.cat(masks, dim=1).sort(dim=1).values
    assert (both == torch.arange(patches)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_masks_depend_on_seed_and_step_alone(kind):
    def draw(seed, step):
        return kind(8, (14, 14), 0.75, seed=seed, step=step).hidden

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert not torch.equal(draw(1, 2), draw(1, 3))
    assert not torch.equal(draw(1, 2), draw(2, 2))
    assert not torch.equal(draw(1, 2), draw(2, 1))


@pytest.mark.parametrize("ratio", [0.75, 0.6, 0.5])
def test_the_sets_are_those_of_transformers_vit_mae(ratio):
    vit_mae = pytest.importorskip("transformers.models.vit_mae.modeling_vit_mae")
    noise = torch.rand(6, 196)
    config = vit_mae.ViTMAEConfig(hidden_size=12, num_attention_heads=2, mask_ratio=ratio)
    embeddings = vit_mae.ViTMAEEmbeddings(config)
    tokens = torch.arange(196.0)[None, :, None].expand(6, 196, 1)
    kept, mask, _ = embeddings.random_masking(tokens, noise)
    masks = masks_from_noise(noise, ratio)
    assert torch.equal(masks.visible, kept[..., 0].long().sort(dim=1).values)
    assert torch.equal(hidden_grid(masks, (14, 14)).flatten(1), mask)


def test_every_patch_is_hidden_equally_often():
    share = hidden_grid(random_masks(4000, (6, 6), 0.75, seed=0), (6, 6)).mean(dim=0)
    # Four and a half standard deviations of 4,000 draws.
    assert (share - 0.75).abs().max() < 4.5 * np.sqrt(0.75 * 0.25 / 4000)


@pytest.mark.parametrize("ratio", [0.4, 0.6, 0.75])
def test_blockwise_hides_in_blocks(ratio):
    def neighbours(kind):
        hidden = hidden_grid(kind(256, (14, 14), ratio, seed=0), (14, 14))
        beside = torch.nn.functional.conv2d(
            hidden[:, None], torch.tensor([[[[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]]]), padding=1
        )[:, 0]
        return ((beside * hidden).sum() / hidden.sum()).item()

    # Of the four neighbours of a hidden patch; a share `ratio` of them by chance, nearly all in a block.
    assert neighbours(blockwise_masks) > neighbours(random_masks) + (1 - ratio)


def test_blocks_lie_everywhere():
    share = hidden_grid(blockwise_masks(2000, (14, 14), 0.4, seed=0), (14, 14)).mean(dim=0)
    assert torch.allclose(share, share.flip(0), atol=0.08)
    assert torch.allclose(share, share.flip(1), atol=0.08)
    assert torch.allclose(share, share.T, atol=0.08)
    assert share.min() > 0.03  # corners too, if less often than the middle, as in BEiT


@pytest.mark.parametrize("kind", KINDS)
def test_impossible_ratios_are_one_sentence(kind):
    for ratio in (0, 1, 1.5, -0.1, float("nan")):
        with pytest.raises(
            InvalidInput, match=f"^mask ratio must lie strictly between 0 and 1, not {ratio}$"
        ):
            kind(2, (4, 4), ratio, seed=0)
    with pytest.raises(InvalidInput, match=r"mask ratio 0\.97 leaves none of 16 patches visible"):
        kind(2, (4, 4), 0.97, seed=0)
    with pytest.raises(InvalidInput, match="mask ratio 1e-18 leaves none of 16 patches hidden"):
        kind(2, (4, 4), 1e-18, seed=0)


def test_keeping_a_share_of_the_hidden():
    masks = random_masks(16, (14, 14), 0.75, seed=0)
    kept = keep_hidden(masks, 1 / 3, seed=0, step=4)
    assert kept.visible is masks.visible
    assert kept.hidden.shape == (16, 49)
    assert (kept.hidden.diff(dim=1) > 0).all()
    for some, all_of_them in zip(kept.hidden.tolist(), masks.hidden.tolist(), strict=True):
        assert set(some) <= set(all_of_them)
    assert torch.equal(kept.hidden, keep_hidden(masks, 1 / 3, seed=0, step=4).hidden)
    assert not torch.equal(kept.hidden, keep_hidden(masks, 1 / 3, seed=0, step=5).hidden)
    assert keep_hidden(masks, 1.0, seed=0) is masks
    assert keep_hidden(masks, 1e-6, seed=0).hidden.shape == (16, 1)
