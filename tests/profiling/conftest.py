"""Programs under the profiler; a headless browser for the pages, and these, each written once."""

from __future__ import annotations

import functools

import pytest
from browser import Browser, find
from programs import profile_program
from recordings import cpu_run, empty_run, gpu_run

from imagen_fast.profiling import page


@pytest.fixture
def profiled(tmp_path):
    """Runs Python code under the profiler: see `programs.profile_program`."""
    return functools.partial(profile_program, tmp_path)


@pytest.fixture(scope="package")
def browser(tmp_path_factory):
    program = find()
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    driven = Browser(program, tmp_path_factory.mktemp("browser"))
    yield driven
    driven.close()


@pytest.fixture(scope="package")
def pages(tmp_path_factory):
    """Name to file."""
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "gpu": gpu_run(),
        "gpus": gpu_run(gpus=8),
        "cpu": cpu_run(),
        "empty": empty_run(),
        "long": gpu_run(samples=100_000),
    }
    for name, profile in made.items():
        page.write(*profile, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in made}
