"""The order of the stream."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagen_fast.data import ArraySource
from imagen_fast.data.order import Order


def source_of(sizes):
    """Shards of so many images each."""
    return ArraySource(
        name="numbers",
        images=np.zeros((sum(sizes), 1, 1, 1), np.uint8),
        shards=np.repeat(np.arange(len(sizes)), sizes) if len(sizes) > 1 else None,
    )


SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(sum)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(SIZES, st.integers(0, 9), st.integers(0, 5), st.integers(1, 50))
def test_each_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone(sizes, seed, epoch, window):
    source = source_of(sizes)
    order = Order(source, seed, True, window).epoch(epoch)
    assert sorted(order) == list(range(sum(sizes)))
    other = Order(source, seed, True, window)
    other.epoch(epoch + 1)
    assert (other.epoch(epoch) == order).all()


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=8), st.integers(0, 9), st.integers(1, 50))
def test_an_image_stays_near_its_place_in_its_shard(sizes, seed, window):
    order = Order(source_of(sizes), seed, True, window).epoch(0)
    # A window of one moves nothing: the shards, each from front to back.
    still = Order(source_of(sizes), seed, True, 1).epoch(0)
    place = np.argsort(still)
    assert np.abs(place[order] - np.arange(len(order))).max() < window
    shards = np.repeat(np.arange(len(sizes)), sizes)[still]
    assert (np.diff(shards) != 0).sum() == len(sizes) - 1
    assert all((np.diff(still[shards == number]) == 1).all() for number in range(len(sizes)))


def test_shards_and_images_are_mixed():
    source = source_of([100] * 50)
    order = Order(source, 0, True, 400)
    first, second = order.epoch(0), order.epoch(1)
    assert (first != second).mean() > 0.99
    for epoch in (first, second):
        # Neighbours in the stream come from far apart, those of a file do not follow one another.
        assert (np.abs(np.diff(epoch)) == 1).mean() < 0.02
        assert len(set(source.shards[epoch[1000:1064]])) >= 4
    # Every image may come early or late.
    places = np.array([np.argsort(Order(source, seed, True, 400).epoch(0))[0] for seed in range(60)])
    assert places.min() < 1000
    assert places.max() > 4000


def test_the_window_that_is_used_mixes_shards_of_a_thousand():
    source = source_of([1000] * 20)
    epoch = Order(source, 0, True).epoch(0)
    assert len(set(source.shards[epoch[8000:8064]])) >= 4
    assert (np.abs(np.diff(epoch)) == 1).mean() < 0.01


def test_unshuffled_it_is_the_sources():
    assert Order(source_of([3, 4]), 0, False).epoch(5).tolist() == list(range(7))


@pytest.mark.parametrize("sizes", [[7], [3, 4]])
def test_positions_run_over_epochs(sizes):
    order = Order(source_of(sizes), 3, True)
    stream = np.concatenate([order.epoch(n) for n in range(4)])
    assert (order.at(np.arange(3, 25)) == stream[3:25]).all()
    assert list(order.candidates(8)) == [*stream[8:14], stream[7]]
