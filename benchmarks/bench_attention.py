"""The attention suite for pytest-benchmark; see conftest.py."""

SUITE = "attention"


def test_attention(timed):
    timed()
