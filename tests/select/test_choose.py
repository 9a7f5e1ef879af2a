import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compress.errors import InputError, TargetError
from compress.select.choose import LayerCollapseWarning, choose, collapsed, erk_counts, lowest, warn_of_collapse
from compress.select.criteria.magnitude import magnitude
from compress.select.scores import PIECE, Scores, removed_first

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def by_sorting(scores, count):
    """The independent truth: a stable sort of all scores laid end to end."""
    flat = np.concatenate([score.double().numpy().ravel() for score in scores])
    mark = np.zeros(len(flat), dtype=bool)
    mark[np.argsort(flat, kind="stable")[:count]] = True
    return mark


values = st.floats(-10, 10, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-40])
tensors = st.lists(
    arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=6), elements=values), min_size=1, max_size=4
)


@settings(max_examples=300)
@given(raw=tensors, share=st.floats(0, 1), dtype=st.sampled_from(DTYPES))
def test_lowest_equals_a_stable_sort(raw, share, dtype):
    scores = [torch.from_numpy(array).to(dtype) for array in raw]
    count = int(share * sum(score.numel() for score in scores))
    marks = lowest(scores, count)
    np.testing.assert_array_equal(torch.cat([mark.flatten() for mark in marks]).numpy(), by_sorting(scores, count))


def chosen_by_sorting(scores, sparsity, scope, floor):
    """What `choose` keeps, by numpy: the `floor` best of each tensor aside, the first of a stable sort go."""
    if scope == "layer":
        return [chosen_by_sorting([score], sparsity, "global", floor)[0] for score in scores]
    flat = [score.double().numpy().ravel() for score in scores]
    held = np.concatenate([np.argsort(np.argsort(part, kind="stable")) >= len(part) - floor for part in flat])
    order = np.lexsort((np.concatenate(flat), held))
    keep = np.ones(len(held), dtype=bool)
    keep[order[: round(sparsity * len(held))]] = False
    ends = np.cumsum([len(part) for part in flat])
    return [part.reshape(score.shape) for part, score in zip(np.split(keep, ends[:-1]), scores, strict=True)]


@settings(max_examples=200)
@given(
    raw=tensors,
    kinds=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4),
    scope=st.sampled_from(["global", "layer"]),
    sparsity=st.floats(0, 0.99),
    floor=st.integers(0, 2),
    lazily=st.booleans(),
    seed=st.integers(0, 9),
)
def test_choose_equals_sorting(raw, kinds, scope, sparsity, floor, lazily, seed):
    """Weights of any mixture of dtypes, some entries gone already, magnitudes computed before or piece by piece."""
    weights = [torch.from_numpy(array).to(kinds[index % len(kinds)]) for index, array in enumerate(raw)]
    chance = torch.Generator().manual_seed(seed)
    gone = [torch.rand(weight.shape, generator=chance) < 0.2 for weight in weights]
    scores = [weight.abs().masked_fill(dead, -torch.inf) for weight, dead in zip(weights, gone, strict=True)]
    groups = [[score] for score in scores] if scope == "layer" else [scores]
    sizes = [[score.numel() for score in group] for group in groups]
    if any(round(sparsity * sum(group)) > sum(group) - sum(min(floor, size) for size in group) for group in sizes):
        sparsity = 0.0
    given = [Scores(magnitude, w).then(removed_first, d) for w, d in zip(weights, gone, strict=True)]
    keep = choose(given if lazily else scores, sparsity, scope=scope, min_keep=floor or None)
    for mask, expected in zip(keep, chosen_by_sorting(scores, sparsity, scope, floor), strict=True):
        np.testing.assert_array_equal(mask.numpy(), expected)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    sparsity=st.floats(0, 1, exclude_max=True),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(["equal", "zeros", "few values", "random"]),
    seed=st.integers(0, 99),
)
def test_exactly_k_whatever_the_ties(sizes, sparsity, dtype, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = [
        {
            "equal": lambda n: torch.full((n,), 0.5),
            "zeros": torch.zeros,
            "few values": lambda n: torch.randint(0, 3, (n,), generator=generator).float(),
            "random": lambda n: torch.randn(n, generator=generator),
        }[kind](size).to(dtype)
        for size in sizes
    ]
    total = sum(sizes)
    keep = choose(scores, sparsity)
    pruned = ~torch.cat(keep)
    assert int(pruned.sum()) == round(sparsity * total)
    flat = torch.cat(scores).double()
    if 0 < int(pruned.sum()) < total:
        assert flat[pruned].max() <= flat[~pruned].min()
    if kind in ("equal", "zeros"):
        assert pruned[: round(sparsity * total)].all()  # by position
    per_layer = choose(scores, sparsity, scope="layer")
    assert [int((~mask).sum()) for mask in per_layer] == [round(sparsity * size) for size in sizes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distinct", [50, 10**9])
def test_large_tensors_cross_the_borders_of_pieces(dtype, distinct):
    generator = torch.Generator().manual_seed(0)
    sizes = (3 * PIECE + 1, 5, 2 * PIECE)
    scores = [(torch.randint(-distinct, distinct, (n,), generator=generator) / 7).to(dtype) for n in sizes]
    count = 3 * PIECE + PIECE // 2
    marks = torch.cat(lowest(scores, count))
    np.testing.assert_array_equal(marks.numpy(), by_sorting(scores, count))


def test_sparsity_zero_and_near_one():
    scores = [torch.rand(1000)]
    assert choose(scores, 0.0)[0].all()
    assert choose(scores, 0.9994)[0].sum() == 1
    assert choose(scores, 0.9996)[0].sum() == 0  # round(999.6) = 1000


@pytest.mark.parametrize("sparsity", [1.0, 1.5, -0.1, float("nan")])
def test_sparsity_out_of_range(sparsity):
    with pytest.raises(InputError, match=r"sparsity: found .*expected a number at least 0 and below 1"):
        choose([torch.rand(3)], sparsity)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nan", [math.nan, -math.nan])
@pytest.mark.parametrize("others", [1.0, -1.0, math.inf, -math.inf])
@pytest.mark.parametrize("how", [{}, {"scope": "layer"}, {"scope": "erk"}, {"min_keep": 1}])
def test_nan_is_refused_by_name(dtype, nan, others, how):
    broken = torch.full((4, 2), others, dtype=dtype)
    broken[2, 1] = nan
    for sparsity in (0.0, 0.5):
        with pytest.raises(TargetError, match=r"scores of fc\.weight hold NaN"):
            choose([torch.rand(2, 2, dtype=dtype), broken], sparsity, names=["a", "fc.weight"], **how)


@pytest.mark.parametrize("bits", [0x7F800001, -0x7FFFFF])
def test_nan_whatever_its_payload(bits):
    nan = torch.tensor([1.0, 0.0]).view(torch.int32).fill_(bits).view(torch.float32)
    assert nan.isnan().all()
    with pytest.raises(TargetError, match="scores of tensor 0 hold NaN"):
        lowest([nan], 1)


def peak(function, trace):
    """Bytes that torch held at once beyond those before, temporaries within operations included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    profile.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    return int(np.cumsum([event["args"]["Bytes"] for event in memory]).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", [{}, {"min_keep": 5}, {"scope": "erk"}])
def test_memory_beside_the_masks_does_not_grow_with_the_weights(dtype, how, tmp_path):
    beside = []
    for entries in (1 << 20, 1 << 22):
        scores = [Scores(magnitude, torch.randn(2, entries // 4).to(dtype)) for _ in range(2)]
        masks = entries
        beside.append(peak(lambda scores=scores: choose(scores, 0.9, **how), tmp_path / "trace.json") - masks)
    assert beside[1] < 32 * PIECE
    assert beside[1] - beside[0] < 4 * PIECE  # less than a bit for each entry that was added


@given(
    sizes=st.lists(st.integers(2, 50), min_size=2, max_size=4),
    floor=st.integers(1, 3) | st.floats(0.01, 0.2),
    seed=st.integers(0, 99),
)
def test_min_keep_holds_the_best_of_every_tensor(sizes, floor, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(size, generator=generator) * 10**index for index, size in enumerate(sizes)]
    held = [min(floor, size) if isinstance(floor, int) else max(1, round(floor * size)) for size in sizes]
    sparsity = 0.5 if round(0.5 * sum(sizes)) <= sum(sizes) - sum(held) else 0.0
    keep = choose(scores, sparsity, min_keep=floor)
    assert sum(int((~mask).sum()) for mask in keep) == round(sparsity * sum(sizes))
    for mask, score, count in zip(keep, scores, held, strict=True):
        assert int(mask.sum()) >= count
        assert mask[score.argsort()[-count:]].all()


def test_min_keep_holds_among_infinite_scores():
    scores = [torch.tensor([math.inf]), torch.full((2, 2), math.inf)]
    first, second = choose(scores, 0.6, min_keep=1)
    assert first.tolist() == [True]
    assert second.tolist() == [[False, False], [False, True]]


def test_min_keep_that_contradicts_the_sparsity():
    with pytest.raises(InputError, match="takes 18 of 20 entries of all targets, but min_keep holds 10"):
        choose([torch.rand(10), torch.rand(10)], 0.9, min_keep=5)
    with pytest.raises(InputError, match="takes 9 of 10 entries of fc, but min_keep holds 5"):
        choose([torch.rand(10)], 0.9, min_keep=0.5, scope="layer", names=["fc"])
    with pytest.raises(InputError, match="min_keep: found -1"):
        choose([torch.rand(10)], 0.5, min_keep=-1)


def test_collapse_names_layers_below_the_share():
    keep = [torch.zeros(1000, dtype=torch.bool), torch.ones(10, dtype=torch.bool), torch.zeros(1000, dtype=torch.bool)]
    keep[2][:3] = True
    assert [line.split(" ")[0] for line in collapsed(keep, ["a", "b", "c"])] == ["a"]
    assert [line.split(" ")[0] for line in collapsed(keep, ["a", "b", "c"], share=0.01)] == ["a", "c"]
    with pytest.warns(LayerCollapseWarning, match="^a would keep 0 of its 1,000 weights"):
        warn_of_collapse(keep, ["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_collapse(keep[1:], ["b", "c"])


def erk_by_the_paper(shapes, total):
    """Evci et al. (2020): densities eps * sum(shape) / prod(shape); a layer above 1 is dense, and eps is recomputed."""
    sizes = [math.prod(shape) for shape in shapes]
    full = set()
    while True:
        left = total - sum(sizes[index] for index in full)
        eps = left / sum(sum(shape) for index, shape in enumerate(shapes) if index not in full)
        over = {index for index, shape in enumerate(shapes) if index not in full and eps * sum(shape) > sizes[index]}
        if not over:
            break
        full |= over
    return [size if index in full else eps * sum(shapes[index]) for index, size in enumerate(sizes)]


SHAPES = [(256, 784), (128, 256), (16, 8, 3, 3), (10, 128), (10,)]


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9, 0.97, 0.99])
def test_erk_by_the_papers_formula(sparsity):
    sizes = [math.prod(shape) for shape in SHAPES]
    total = sum(sizes) - round(sparsity * sum(sizes))
    counts = erk_counts(SHAPES, total, [0] * len(sizes), sizes)
    assert sum(counts) == total
    for count, exact in zip(counts, erk_by_the_paper(SHAPES, total), strict=True):
        assert abs(count - exact) < 1
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(shape, generator=generator) for shape in SHAPES]
    keep = choose(scores, sparsity, scope="erk")
    assert [int(mask.sum()) for mask in keep] == counts
    for mask, score in zip(keep, scores, strict=True):
        assert mask.all() or score[~mask].max() <= score[mask].min()


@given(
    shapes=st.lists(st.lists(st.integers(1, 6), max_size=3), min_size=1, max_size=5),
    sparsity=st.floats(0, 1, exclude_max=True),
    floor=st.none() | st.integers(1, 3),
    gone=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_erk_takes_exactly_k_and_min_keep_holds(shapes, sparsity, floor, gone, seed):
    generator = torch.Generator().manual_seed(seed)
    dead = [torch.rand(shape, generator=generator) < gone for shape in shapes]
    scores = [torch.randn(mask.shape, generator=generator).masked_fill(mask, -torch.inf) for mask in dead]
    total = sum(score.numel() for score in scores)
    held = sum(min(floor or 0, score.numel()) for score in scores)
    if round(sparsity * total) > total - held:
        with pytest.raises(InputError, match="of all targets, but min_keep holds"):
            choose(scores, sparsity, scope="erk", min_keep=floor)
        return
    keep = choose(scores, sparsity, scope="erk", min_keep=floor)
    assert sum(int((~mask).sum()) for mask in keep) == round(sparsity * total)
    assert all(int(mask.sum()) >= min(floor or 0, mask.numel()) for mask in keep)
    if floor is None and sum(int(mask.sum()) for mask in dead) <= round(sparsity * total):
        assert not any((mask & gone).any() for mask, gone in zip(keep, dead, strict=True))  # the dead go first
