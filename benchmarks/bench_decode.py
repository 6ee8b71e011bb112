"""The decode suite for pytest-benchmark; see conftest.py."""

SUITE = "decode"


def test_decode(timed):
    timed()
