"""The dropin suite for pytest-benchmark; see conftest.py."""

SUITE = "dropin"


def test_dropin(timed):
    timed()
