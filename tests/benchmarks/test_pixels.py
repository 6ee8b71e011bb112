"""The suite of pixels on tiny shapes: each subject, each peer that can stand here, answers that are wrong."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from imagen_fast import ops
from imagen_fast.benchmarks import causal_attention, causal_training, likelihood, pixels, record
from imagen_fast.benchmarks.attention_case import BOTH, FORWARD
from imagen_fast.benchmarks.causal_attention_case import Case as AttentionCase
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.benchmarks.contest import hold
from imagen_fast.benchmarks.likelihood_case import Case as LikelihoodCase
from imagen_fast.benchmarks.measure import Effort
from imagen_fast.benchmarks.peers import Absence, Peer, flex_attention, linear_cross_entropy, natten
from imagen_fast.benchmarks.pixel_model import Workload, imagegpt_config
from imagen_fast.ops import Neighbourhood, Quadrant, Raster

CPU = torch.device("cpu")
ONCE = Effort(0, 2, 2, 0)
CONTEXTS = (Raster(), Quadrant(), Neighbourhood(2))


pytestmark = pytest.mark.usefixtures("one_thread")


def wrong(results):
    return {r.implementation: r.verdict.evidence for r in results if not r.verdict.correct}


def ratios(contest, results):
    return {(r["case"], r["versus"]) for r in record.make_record("pixels", True, {}, [results], [])["ratios"]}


# --- pixel cross-entropy ------------------------------------------------------------------------------


def likelihood_case(type_="bf16", rows=256, checked=256):
    return LikelihoodCase(rows, 32, 64, type_, CPU, checked)


def likelihood_contest(case, measured=BOTH, wanted=None, apart=False):
    wanted = tuple(likelihood.rivals("cpu", quick=True)) if wanted is None else wanted
    return replace(likelihood.contest(case, measured, wanted, ONCE), apart=apart)


@pytest.mark.parametrize("measured", [FORWARD, BOTH])
@pytest.mark.parametrize("type_", ["bf16", "fp32"])
def test_every_cross_entropy_is_correct_and_compared_with_ours(type_, measured):
    contest = likelihood_contest(likelihood_case(type_), measured)
    results = hold(contest, CPU)
    assert wrong(results) == {}
    present = {"full logits"}
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        chunked = "linear_cross_entropy chunked"
        present |= {"linear_cross_entropy", chunked, f"{chunked}, compact"}
    assert ratios(contest, results) == {(contest.name, name) for name in present}


def test_apart_each_tells_what_memory_a_call_takes():
    """All logits in both types, and the gradients of both."""
    rows = 16384
    results = hold(likelihood_contest(likelihood_case(rows=rows), apart=True), CPU)
    assert wrong(results) == {}
    peaks = {r.implementation: r.verdict.evidence["peak_bytes_of_a_call"] for r in results}
    logits = rows * 64 * (2 + 4)
    assert peaks["full logits"] is None or peaks["full logits"] > logits > peaks[OURS]


@pytest.mark.parametrize("bad", ["its loss", "its gradient"])
@pytest.mark.parametrize("type_", ["bf16", "fp32"])
def test_a_wrong_cross_entropy_has_no_speed(monkeypatch, type_, bad):
    def off(hidden, weight, target):
        if bad == "its loss":
            return linear_cross_entropy.full_logits(hidden, weight, target) * 1.05
        narrowed = hidden.detach() + (hidden - hidden.detach()) * 1.3
        return linear_cross_entropy.full_logits(narrowed, weight, target)

    monkeypatch.setattr(likelihood.ops, "pixel_cross_entropy", off)
    contest = likelihood_contest(likelihood_case(type_), wanted=(likelihood.Rival("off", lambda: off),))
    results = hold(contest, CPU)
    assert [(r.verdict.correct, r.timing) for r in results] == [(False, None)] * 2


def test_answers_are_compared_in_chunks_too(monkeypatch):
    """Of d_hidden the ends, of the rest all."""
    from imagen_fast.benchmarks import likelihood_case as module

    monkeypatch.setattr(module, "CHUNK_ROWS", 100)
    case = likelihood_case("fp32")
    answer = case.call(linear_cross_entropy.full_logits, BOTH)()
    assert case.bound(answer).correct
    for row, checked in ((0, True), (150, False), (255, True)):
        loss, d_weight, d_hidden = (x.detach().clone() for x in answer)
        d_hidden[row] += 1
        assert case.bound((loss, d_weight, d_hidden)).correct is not checked


def test_kernels_that_are_not_here_are_called_with_what_they_take(monkeypatch):
    monkeypatch.setattr(Peer, "absence", lambda self, device: None)
    monkeypatch.setattr(Peer, "load", lambda self, name: [linear_cross_entropy.full_logits])
    names = ("Liger", "Cut Cross-Entropy", "QuACK")
    wanted = tuple(rival for rival in likelihood.rivals("cuda", quick=False) if rival.name in names)
    results = hold(likelihood_contest(likelihood_case(), wanted=wanted), CPU)
    assert [r.implementation for r in results] == [OURS, *names]
    assert wrong(results) == {}


def test_who_needs_more_memory_than_a_gpu_has_is_absent_and_says_so(monkeypatch):
    gpu = SimpleNamespace(total_memory=10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    case = replace(likelihood_case(rows=10**6), device=torch.device("cuda"))
    rival = next(likelihood.rivals("cuda", quick=True))
    assert rival.absence(case).why == "needs about 1 GB"
    assert rival.absence(replace(case, rows=10**5)) is None


def test_facts_of_a_cross_entropy():
    facts = likelihood_case().facts(BOTH)
    assert (facts["operations"], facts["exponentials"]) == (6 * 256 * 32 * 64, 256 * 64)
    assert facts["bytes"] == 2 * (256 + 64) * 32 * 2 + 8 * 256


# --- attention in generation order --------------------------------------------------------------------


def attention_case(context, type_="fp32"):
    return AttentionCase(context, (5, 7), 2, 3, 32, type_, CPU)


@pytest.mark.parametrize("measured", [FORWARD, BOTH])
@pytest.mark.parametrize("type_", ["bf16", "fp32"])
@pytest.mark.parametrize("context", CONTEXTS)
def test_every_attention_is_correct_and_compared_with_ours(context, type_, measured):
    case = attention_case(context, type_)
    wanted = tuple(r for r in causal_attention.rivals(case, quick=True) if r.name.startswith("SDPA"))
    contest = causal_attention.contest(case, measured, wanted, ONCE)
    results = hold(contest, CPU)
    assert wrong(results) == {}
    present = {"SDPA with the mask", "SDPA math with the mask"}
    present |= {"SDPA causal"} if isinstance(context, Raster) else set()
    present |= {f"{OURS} full attention"} if isinstance(context, Quadrant) else set()
    assert ratios(contest, results) == {(contest.name, name) for name in present}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("context", [*CONTEXTS, Neighbourhood(1, of="raster"), Quadrant(prefix=4)])
def test_flex_attention_sees_what_the_context_lets_it(context):
    case = attention_case(context)
    rival = causal_attention.Rival(
        "Flex", lambda case: flex_attention.causal(case.window, CPU, compiled=False)
    )
    _, verdict = causal_attention._prepare(case, FORWARD, rival, case.plausible)
    assert verdict.correct, verdict.evidence


def test_flex_attention_is_absent_from_a_backward_on_the_cpu_in_its_own_words():
    case = attention_case(Quadrant())
    flex = next(r for r in causal_attention.rivals(case, quick=False) if "Flex" in r.name)
    flex = flex._replace(name="Flex")  # the other name waits for a compiler
    results = hold(causal_attention.contest(case, BOTH, (flex,), ONCE), CPU)
    (absence,) = (result.absence for result in results if result.absence)
    assert absence.peer == "Flex (Quadrant, forward+backward)"
    assert "does not support backward on CPU" in absence.why


def varlen_stand_in(q, k, v, starts, k_starts, longest, k_longest, causal=False, window_size=(-1, -1)):
    """As varlen_attn and flash_attn_varlen_func take their arguments; all images are of one length."""
    assert causal or window_size == (-1, 0)
    q, k, v = (x.unflatten(0, (-1, longest)).transpose(1, 2) for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).flatten(0, 1)


class XformersStandIn:
    """`xformers.ops`, and its `fmha.BlockDiagonalMask`, which is the longest image when it is causal."""

    @staticmethod
    def from_seqlens(q_seqlen, kv_seqlen, device):
        assert q_seqlen == kv_seqlen
        return SimpleNamespace(make_causal=lambda: q_seqlen[0])

    @staticmethod
    def memory_efficient_attention(q, k, v, attn_bias):
        return varlen_stand_in(q[0], k[0], v[0], None, None, attn_bias, attn_bias, causal=True)[None]


def test_kernels_for_packed_rows_are_told_to_be_causal(monkeypatch):
    xformers = {
        "fmha": SimpleNamespace(BlockDiagonalMask=XformersStandIn),
        "memory_efficient_attention": XformersStandIn.memory_efficient_attention,
    }
    monkeypatch.setattr(Peer, "absence", lambda self, device: None)
    monkeypatch.setattr(Peer, "load", lambda self, *names: [xformers.get(n, varlen_stand_in) for n in names])
    case = attention_case(Raster())
    names = ("varlen_attn", "flash-attn", "xformers")
    wanted = tuple(r for r in causal_attention.rivals(case, quick=True) if r.name in names)
    results = hold(causal_attention.contest(case, BOTH, wanted, ONCE), CPU)
    assert [r.implementation for r in results] == [OURS, *names]
    assert wrong(results) == {}


def na2d_stand_in(q, k, v, kernel_size, is_causal):
    """As NATTEN defines it: key i - kernel_size < j <= i along both axes."""
    assert is_causal
    (height, width), grid = kernel_size, q.shape[1:3]
    j, i = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    down, along = (x.flatten()[:, None] - x.flatten() for x in (j, i))
    mask = (down >= 0) & (down < height) & (along >= 0) & (along < width)
    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).unflatten(1, grid)


@pytest.mark.parametrize("context", [Quadrant(), Neighbourhood(2)])
def test_natten_gets_the_window(context, monkeypatch):
    monkeypatch.setattr(Peer, "absence", lambda self, device: None)
    monkeypatch.setattr(Peer, "load", lambda self, name: [na2d_stand_in])
    build = causal_attention._natten
    wanted = (causal_attention.Rival("NATTEN", build, build, causal_attention.NATTEN),)
    results = hold(causal_attention.contest(attention_case(context), BOTH, wanted, ONCE), CPU)
    assert [r.implementation for r in results][:2] == [OURS, "NATTEN"]
    assert wrong(results) == {}
    with pytest.raises(ValueError, match="raster"):
        natten.attention(Raster().window((5, 7)))


@pytest.mark.parametrize("type_", ["bf16", "fp32"])
@pytest.mark.parametrize("bad", ["the pixel on the right is seen", "the gradient is another's"])
def test_a_wrong_attention_has_no_speed(bad, type_, monkeypatch):
    case = attention_case(Quadrant(), type_)
    attention = ops.causal_pixel_attention

    def attend(q, k, v, *_):
        if bad == "the pixel on the right is seen":
            return attention(q, k, v, case.grid, Raster(), backend="reference")
        k = k.detach() + (k - k.detach()) * 1.3
        return attention(q, k, v, case.grid, case.context, backend="reference")

    # What ours is held against asks for a back-end.
    monkeypatch.setattr(
        ops, "causal_pixel_attention", lambda *given, **more: (attention if more else attend)(*given, **more)
    )
    contest = causal_attention.contest(case, BOTH, (causal_attention.Rival("off", lambda _: attend),), ONCE)
    results = hold(contest, CPU)[:2]
    assert [(r.verdict.correct, r.timing) for r in results] == [(False, None)] * 2


def test_facts_of_an_attention():
    """Three pixels by two: 1, 2, 2, 4, 3 and 6 are seen."""
    case = AttentionCase(Quadrant(), (3, 2), 2, 3, 32, "bf16", CPU)
    facts = case.facts(FORWARD)
    assert (facts["operations"], facts["exponentials"]) == (4 * 18 * 6 * 32, 18 * 6)
    assert facts["bytes"] == 4 * 6 * 6 * 32 * 2
    assert case.facts(BOTH)["operations"] == 12 * 18 * 6 * 32


# --- training steps -----------------------------------------------------------------------------------


def training_contest(quick=True, apart=False):
    workload = Workload(imagegpt_config(32, 2, 2, side=4, colours=16), 3, CPU)
    return replace(causal_training.contest("imagegpt mini", workload, quick), effort=ONCE, apart=apart)


@pytest.mark.parametrize("quick", [True, False])
def test_our_training_step_is_correct_and_compared_with_theirs(quick, monkeypatch):
    pytest.importorskip("transformers")
    # Compiling takes a minute, and what is compiled is the same code.
    monkeypatch.setattr(causal_training, "compiler_absence", lambda name, *_: Absence(name, "not here", ""))
    contest = training_contest(quick)
    results = hold(contest, CPU)
    assert wrong(results) == {}
    types, modes = ("bf16",), ("bf16",)
    if not quick:
        types, modes = ("bf16", "fp32"), ("bf16", "fp32", "bf16, memory kept")
    assert ratios(contest, results) == {
        (f"imagegpt mini {type_} step", f"transformers {mode}") for type_ in types for mode in modes
    }


def test_a_full_run_adds_ours_and_theirs_compiled_where_there_is_a_compiler(monkeypatch):
    pytest.importorskip("transformers")
    compiled = {
        ("imagegpt mini bf16 compiled step", OURS),
        ("imagegpt mini bf16 step", "transformers bf16 compiled"),
    }

    def contenders(absent):
        monkeypatch.setattr(
            causal_training, "compiler_absence", lambda name, *_: Absence(name, "", "") if absent else None
        )
        return {(c.case, c.implementation) for c in training_contest(quick=False).contenders()}

    assert contenders(absent=False) - contenders(absent=True) == compiled


@pytest.mark.parametrize("apart", [False, True])
def test_without_transformers_our_step_is_measured_and_the_peer_named(monkeypatch, apart):
    monkeypatch.setattr(
        causal_training, "TRANSFORMERS", replace(causal_training.TRANSFORMERS, module="no_such_module_here")
    )
    contest = training_contest(apart=apart)
    results = hold(contest, CPU)
    assert [(r.implementation, r.verdict.correct) for r in results] == [(OURS, True)]
    assert [absence.peer for absence in contest.absent] == ["transformers", "torch.compile"]


def test_a_wrong_gradient_of_a_step_is_found(monkeypatch):
    """A model that sees less than theirs computes something else."""
    pytest.importorskip("transformers")
    load = causal_training.load_imagegpt

    def blinkered(model):
        ours = load(model)
        ours.config = replace(ours.config, context=Quadrant())
        return ours

    monkeypatch.setattr(causal_training, "load_imagegpt", blinkered)
    ours = hold(training_contest(), CPU)[0]
    assert not ours.verdict.correct
    assert ours.timing is None


# --- the suite ----------------------------------------------------------------------------------------


def test_the_suite_has_each_subject_and_names_its_sizes():
    names = [contest.name for contest in pixels.contests(CPU, quick=True)]
    assert "pixel cross-entropy M65536 E256 V512 bf16 forward+backward" in names
    assert "pixel cross-entropy M65536 E64 V256 bf16 forward+backward" in names
    assert "causal attention quadrant 32x32 B4 H8 D64 bf16 forward+backward" in names
    assert "causal attention neighbourhood3 32x32 B4 H8 D64 bf16 forward+backward" in names
    assert names[-1] == "imagegpt 256x8 B1"
    for device in ("cpu", "cuda"):
        for module in (likelihood, causal_attention):
            cases = [case.name for case in module.cases(torch.device(device), quick=False)]
            assert len(set(cases)) == len(cases)


def test_on_the_cpu_losses_and_steps_have_processes_of_their_own():
    likely = next(likelihood.contests(CPU, quick=True))
    assert likely.apart
    assert next(causal_training.contests(CPU, quick=True)).apart
    assert not next(causal_training.contests(torch.device("cuda"), quick=True)).apart


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("subject", ["likelihood", "attention"])
def test_on_a_gpu_graphs_are_timed(subject):
    device = torch.device("cuda")
    if subject == "likelihood":
        case = replace(likelihood_case(), device=device)
        wanted = (likelihood.Rival("full logits", linear_cross_entropy.plain),)
        contest = likelihood.contest(case, BOTH, wanted, ONCE)
    else:
        case = replace(attention_case(Quadrant(), "bf16"), device=device)
        contest = causal_attention.contest(
            case, BOTH, tuple(causal_attention.rivals(case, quick=True))[:1], ONCE
        )
    results = hold(contest, device)
    assert wrong(results) == {}
    assert {r.verdict.evidence["timed"] for r in results} == {"as a CUDA graph"}
