"""The sample suite for pytest-benchmark; see conftest.py."""

SUITE = "sample"


def test_sample(timed):
    timed()
