"""The attention suite on tiny shapes: every use, every layout, every peer that can stand here."""

from dataclasses import asdict
from functools import partial

import pytest
import torch

from imagen_fast import ops
from imagen_fast.benchmarks import attention, record
from imagen_fast.benchmarks.attention_case import BOTH, FORWARD, Case
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.contest import hold
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.peers import Peer

CPU = torch.device("cpu")
ONCE = Effort(0, 2, 2, 0)
USES = ("dense", "packed", "cross", "ragged", "visible", "all")


# Not the tiniest: of a few values the largest error is luck, and twice another's luck is no bound.
def tiny(use, type_="fp32", device=CPU):
    if use in ("visible", "all"):
        return attention.in_place(use, 4, 29, 3, 32, type_, device)
    if use == "ragged":
        return attention.ragged(4, 2, 32, type_, device)
    if use == "cross":
        return Case("cross", 4, 31, 19, 3, 32, type_, device, "packed")
    return Case(use, 4, 23, 23, 3, 32, type_, device, "grid" if use == "dense" else "packed")


def rivals(*names):
    found = [rival for rival in attention.rivals("cuda", quick=False) if rival.name in names]
    assert len(found) == len(names)
    return tuple(found)


@pytest.mark.parametrize("measured", [FORWARD, BOTH])
@pytest.mark.parametrize("type_", ["fp32", "bf16"])
@pytest.mark.parametrize("use", USES)
def test_everyone_is_correct_and_compared_with_ours(use, type_, measured):
    wanted = (attention.SDPA, *(r for r in attention.rivals("cpu", quick=True) if r.name == "SDPA math"))
    contest = attention.contest(tiny(use, type_), measured, wanted, ONCE)
    results = hold(contest, CPU)
    assert {r.implementation: r.verdict.evidence for r in results if not r.verdict.correct} == {}
    own = {"visible": [f"{OURS} packed"], "ragged": [f"{OURS} dense"]}.get(use, [])
    versus = [r["versus"] for r in record.make_record("attention", True, {}, [results], [])["ratios"]]
    assert versus == [*own, "SDPA", "SDPA math"]
    assert {result.case for result in results} == {contest.name}


def varlen_stand_in(q, k, v, starts, k_starts, longest, k_longest, causal=False, window_size=(-1, -1)):
    """As varlen_attn and flash_attn_varlen_func take their arguments."""
    context = ops.Visible.cross(starts.diff(), k_starts.diff(), longest, k_longest)
    return ops.masked_patch_attention(q, k, v, context, backend="reference")


class XformersStandIn:
    class BlockDiagonalMask:
        @staticmethod
        def from_seqlens(q_seqlen, kv_seqlen, device):
            return partial(ops.Visible.cross, torch.tensor(q_seqlen), torch.tensor(kv_seqlen))()

    @staticmethod
    def memory_efficient_attention(q, k, v, attn_bias):
        return ops.masked_patch_attention(q[0], k[0], v[0], attn_bias, backend="reference")[None]


@pytest.mark.parametrize("use", USES)
def test_kernels_for_packed_rows_get_the_rows_that_count(use, monkeypatch):
    def load(self, *names):
        xformers = {
            "fmha": XformersStandIn,
            "memory_efficient_attention": XformersStandIn.memory_efficient_attention,
        }
        return [xformers.get(name, varlen_stand_in) for name in names]

    monkeypatch.setattr(Peer, "absence", lambda self, device: None)
    monkeypatch.setattr(Peer, "load", load)
    wanted = rivals("varlen_attn", "flash-attn", "xformers")
    results = hold(attention.contest(tiny(use), BOTH, wanted, ONCE), CPU)
    assert {r.implementation for r in results} >= {"varlen_attn", "flash-attn", "xformers"}
    assert {r.implementation: r.verdict.evidence for r in results if not r.verdict.correct} == {}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("builds_mask", [False, True])
def test_flex_attention_sees_who_is_seen(use, builds_mask):
    case = tiny(use)
    call, verdict = attention._prepare(case, FORWARD, "grid", attention._flex(builds_mask, compiled=False))
    assert verdict.correct, verdict.evidence
    assert len(call()) == 1


def test_a_peer_that_refuses_the_case_is_absent_in_its_own_words():
    flex = next(rival for rival in attention.rivals("cpu", quick=True) if "Flex" in rival.name)
    flex = flex._replace(name="Flex")  # the other name waits for a compiler
    contest = attention.contest(tiny("visible"), BOTH, (flex,), ONCE)
    results = hold(contest, CPU)
    (absence,) = (result.absence for result in results if result.absence)
    made = record.make_record("attention", True, {}, [results], contest.absent)
    assert made["absent"] == [asdict(absence)]
    assert [result["implementation"] for result in made["results"]] == [OURS, f"{OURS} packed"]
    assert absence.peer == f"{flex.name} (in-place visible-rows, forward+backward)"
    assert "does not support backward on CPU" in absence.why


def test_a_peer_that_is_not_installed_is_absent_with_what_brings_it():
    nobody = Peer("nobody", "no_such_module_here.ops", "pip install nobody")
    rival = attention.Rival("nobody", "packed", lambda case: None, peer=nobody)
    (absence,) = attention.contest(tiny("packed"), BOTH, (rival,), ONCE).absent
    assert (absence.why, absence.install) == ("not installed", "pip install nobody")


@pytest.mark.parametrize("wrong", ["a hidden token is seen", "the gradient is another's"])
def test_a_wrong_answer_is_found(wrong):
    case = tiny("visible")
    context = case.context("grid")

    def attend(q, k, v):
        if wrong == "a hidden token is seen":
            return ops.masked_patch_attention(q, k, v)
        return ops.masked_patch_attention(q, k.detach() + (k - k.detach()) * 1.001, v, context)

    _, verdict = attention._prepare(case, BOTH, "grid", lambda _: attend)
    assert not verdict.correct


def test_names_say_use_sizes_hidden_share_type_and_pass():
    names = [contest.name for contest in attention.contests(CPU, quick=True)]
    assert "attention in-place visible-rows B16 N197 H12 D64 hidden75% bf16 forward+backward" in names
    assert "attention packed B512 N20-80 H6 D64 bf16 forward+backward" in names
    assert "attention cross B16 M147 N50 H16 D32 bf16 forward+backward" in names
    for device in ("cpu", "cuda"):
        cases = list(attention.cases(torch.device(device), quick=False))
        assert len({case.name for case in cases}) == len(cases)
    assert len({case.name for case in attention.grid(CPU)}) == 72


def test_ragged_and_dense_have_as_many_tokens():
    case = attention.ragged(512, 6, 64, "bf16", CPU)
    (dense,) = attention._own(case)
    assert int(case.key_lengths.sum()) == dense.images * dense.keys == 512 * 50
    assert (int(case.key_lengths.min()), int(case.key_lengths.max())) == (20, 80)


def test_three_quarters_of_the_patches_are_hidden_and_the_class_token_never_is():
    case = attention.in_place("visible", 16, 197, 12, 64, "bf16", CPU)
    assert case.key_lengths.tolist() == [50] * 16
    assert bool(case.seen[:, 0].all())
    assert len({tuple(row.tolist()) for row in case.seen}) == 16


def test_facts_are_those_of_the_rows_that_count():
    case = attention.in_place(
        "all", 2, 17, 3, 32, "bf16", CPU
    )  # 4 of 16 patches and the class token are seen
    products = 2 * 17 * 5 * 3
    facts = case.facts(FORWARD)
    assert (facts["operations"], facts["exponentials"]) == (4 * products * 32, products)
    assert facts["bytes"] == 2 * (17 + 17 + 5 + 5) * 3 * 32 * 2
    assert case.facts(BOTH)["operations"] == 12 * products * 32
    assert case.facts(BOTH)["bytes"] == 2 * (4 * 17 + 4 * 5) * 3 * 32 * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("use", USES)
def test_on_a_gpu_graphs_are_timed(use):
    device = torch.device("cuda")
    results = hold(attention.contest(tiny(use, "bf16", device), BOTH, (attention.SDPA,), ONCE), device)
    assert {r.implementation: r.verdict.evidence for r in results if not r.verdict.correct} == {}
    assert {r.verdict.evidence["timed"] for r in results} == {"as a CUDA graph"}
