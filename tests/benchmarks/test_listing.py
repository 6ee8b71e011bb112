"""`imagen-fast bench --list`: it builds nothing, and says where there is nothing."""

import pytest
import torch

from imagen_fast import native
from imagen_fast.benchmarks import attention, causal_attention, cli, decode, loader, pixel_model, resident
from imagen_fast.benchmarks.cli import main
from imagen_fast.benchmarks.suites import SUITES
from imagen_fast.errors import InvalidInput


def refuse(*_, **__):
    raise AssertionError("a list builds nothing, tries nobody and sets nothing up")


@pytest.mark.parametrize("more", [[], ["--curves"]])
def test_a_list_builds_nothing(more, capsys, monkeypatch):
    monkeypatch.setattr(native, "keep_freed_memory", refuse)
    for module in (attention, causal_attention):
        monkeypatch.setattr(module, "try_out", refuse)
    for module in (decode, loader):
        monkeypatch.setattr(module, "jpegs", refuse)
    monkeypatch.setattr(pixel_model, "random_model", refuse)
    monkeypatch.setattr(resident, "evidence", refuse)
    monkeypatch.setattr(torch.nn.Module, "__init__", refuse)
    assert main(["--list", *more]) == 0
    told = capsys.readouterr().out
    assert all(f"{name}: " in told for name in SUITES)
    assert "present: imagen_fast; " in told


def test_a_list_of_nothing_says_so():
    with pytest.raises(InvalidInput, match="no contest has 'zzz' in its name"):
        main(["--list", "--only", "zzz"])
    with pytest.raises(InvalidInput, match="no contest of the suite train has 'zzz'"):
        main(["train", "--list", "--only", "zzz"])


def test_a_suite_without_curves_does_not_hide_the_others(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_device", torch.device)
    properties = type("Properties", (), {"total_memory": 10**11})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert main(["--list", "--curves", "--device", "cuda"]) == 0
    told = capsys.readouterr().out
    assert "decode: the suite decode has curves on a CPU only" in told
    assert "  mae tiny 224x224 B16" in told
    with pytest.raises(InvalidInput, match="on a CPU only"):
        main(["decode", "--list", "--curves", "--device", "cuda"])
