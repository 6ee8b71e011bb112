"""The train suite for pytest-benchmark; see conftest.py."""

SUITE = "train"


def test_train(timed):
    timed()
