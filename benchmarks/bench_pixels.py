"""The pixels suite for pytest-benchmark; see conftest.py."""

SUITE = "pixels"


def test_pixels(timed):
    timed()
