"""The mask of every removal at every moment: 1, the present factor, or 0 where gone."""

import copy
import gc
import io
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from compress.files.checkpoint import read_weights, write_weights
from compress.remove import masks
from compress.remove.pruner import Pruner
from compress.remove.removals import SFP, SRFP, Gradual, GradualSoft, GReg, Hard, Removal, Soft

STEPS = 12


class TwoShots(Removal):
    """A custom removal: half of the set fades by `fade_to` and `fade_by`, then the rest joins."""

    steps = STEPS

    def start(self, pruner: Pruner) -> None:
        pruner.take(0.5)
        pruner.fade_to(0.0)

    def advance(self, pruner: Pruner, step: int) -> None:
        if step == 3:
            pruner.take()
        if 3 <= step < 6:
            pruner.fade_to(1 - 0.1 * step)
        if step >= 6:
            pruner.fade_by(0.5)


# what is removed how, and the factor of an entry that joined the set so many steps ago, at a step
REMOVALS: dict[str, tuple[Callable[[], Removal], Callable[[int, int], float]]] = {
    "hard": (Hard, lambda age, step: 0.0),
    "exponential": (lambda: Soft(STEPS, final=1e-3), lambda age, step: 1e-3 ** (step / STEPS)),
    "linear": (lambda: Soft(STEPS, "linear"), lambda age, step: 1 - step / STEPS),
    "step": (lambda: Soft(STEPS, "step"), lambda age, step: 1 - (step * 5 // STEPS) / 5),
    "gradual": (lambda: Gradual(STEPS, 3), lambda age, step: 0.0),
    "gradual soft": (lambda: GradualSoft(STEPS, 3, 5, final=1e-3), lambda age, step: 1e-3 ** (age / 5) * (age < 5)),
    "two shots": (
        TwoShots,
        lambda age, step: 0.0 if age == step else 1 - 0.1 * step if step < 6 else 0.5 * 0.5 ** (step - 5),
    ),
}
LEARNING: dict[str, tuple[Callable[[], Removal], Callable[[int], float]]] = {
    "soft": (lambda: Soft(STEPS, "linear", learns=True), lambda step: 1 - step / STEPS),
    "sfp": (lambda: SFP(STEPS, 3), lambda step: float(step < STEPS)),
    "srfp": (lambda: SRFP(STEPS, 3), lambda step: float(step < STEPS)),
    "greg": (lambda: GReg(STEPS), lambda step: float(step < STEPS)),
}
DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)).to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x = torch.randn(5, 1, 4, 4, dtype=next(model.parameters()).dtype)
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)


def acting(state: dict[str, Tensor], name: str) -> Tensor:
    """What a reader of the buffers takes for the weight."""
    start, mask = state[f"{name}_start"], state[f"{name}_mask"]
    return torch.where(state[f"{name}_pruned"], start * mask, state[f"{name}_orig"])


def same_bits(one: Tensor, other: Tensor) -> bool:
    return one.detach().numpy().tobytes() == other.detach().numpy().tobytes()


@pytest.mark.parametrize("masks_gradients", [True, False])
@pytest.mark.parametrize("kind", REMOVALS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 99), dtype=st.sampled_from(list(DTYPES)), sparsity=st.floats(0.1, 0.9))
def test_the_buffers_say_what_acts(kind, masks_gradients, seed, dtype, sparsity):
    make, factor = REMOVALS[kind]
    if dtype == torch.bfloat16 and kind in ("gradual soft", "two shots"):
        dtype = torch.float32  # repeated factors in eight bits drift by more than the tolerance
    model = network(seed, dtype)
    optimizer = momentum(model)
    train(model, optimizer)
    pruner = Pruner(model, sparsity=sparsity, removal=make(), min_keep=1, mask_gradients=masks_gradients)
    joined = [torch.full(target.module.weight.shape, -1) for target in pruner.targets]
    for step in range(STEPS + 3):
        state = model.state_dict()
        for since, target in zip(joined, pruner.targets, strict=True):
            mask, pruned = state[f"{target.path}_mask"], state[f"{target.path}_pruned"]
            since[~pruned] = -1
            since[pruned & (since < 0)] = max(0, step - 1) if pruner.removal.cohorts else step
            wanted = torch.ones(mask.shape, dtype=torch.float64)
            if step >= pruner.removal.length:
                wanted[pruned] = 0.0
            else:
                wanted[pruned] = torch.tensor(
                    [factor(step - at, step) for at in since[pruned].tolist()], dtype=torch.float64
                )
            torch.testing.assert_close(mask.double(), wanted, rtol=DTYPES[dtype], atol=0)
            assert mask.dtype == dtype
            assert (mask[~pruned] == 1).all()
            if state.get(f"{target.path}_start") is not None:
                assert torch.equal(acting(state, target.path), target.module.weight)
                assert torch.equal(acting(state, target.path), target.module.weight_orig)
            gone = target.module.weight[pruned & (mask == 0)]
            assert same_bits(gone.float(), torch.zeros(gone.shape))
        before = copy.deepcopy(state)
        train(model, optimizer)  # the optimizer moves weights, and neither what acts in the set nor its buffers
        for name in [name for name in before if name.endswith(("_mask", "_start", "_pruned"))]:
            assert torch.equal(model.state_dict()[name], before[name])
        pruner.step()
    pruner.finalize()
    assert not prune.is_pruned(model)


@pytest.mark.parametrize("kind", LEARNING)
def test_the_mask_of_weights_that_learn_is_the_present_factor_too(kind):
    make, factor = LEARNING[kind]
    model = network()
    optimizer = momentum(model)
    pruner = Pruner(model, sparsity=0.5, removal=make())
    for step in range(STEPS + 3):
        for target in pruner.targets:
            mask, pruned = target.module.weight_mask, target.module.weight_pruned
            wanted = torch.where(pruned, factor(min(step, STEPS)), 1.0)
            torch.testing.assert_close(mask, wanted, rtol=1e-6, atol=0)
            assert torch.equal(target.module.weight, target.module.weight_orig * mask)
        train(model, optimizer)
        pruner.step()


@pytest.mark.parametrize("kind", [kind for kind in REMOVALS if kind != "hard"])
def test_a_checkpoint_gives_what_acted_also_between_the_two_steps(kind, tmp_path):
    """`read_weights`, and `prune.remove` at that moment: the values of the last forward pass where pruned."""
    model = network()
    optimizer = momentum(model)
    pruner = Pruner(model, sparsity=0.6, removal=REMOVALS[kind][0]())
    for _ in range(7):
        train(model, optimizer)
        pruner.step()
    acted = [target.module.weight.detach().clone() for target in pruner.targets]
    train(model, optimizer)
    write_weights(model.state_dict(), tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors").only("a file")
    assert found.keys() == network().state_dict().keys()
    for before, target in zip(acted, pruner.targets, strict=True):
        pruned = target.module.weight_pruned
        assert torch.equal(found[target.path][pruned], before[pruned])
        assert torch.equal(found[target.path][~pruned], target.module.weight_orig[~pruned])
        prune.remove(target.module, target.name)
        assert torch.equal(target.module.weight, found[target.path])


@pytest.mark.parametrize("kind", REMOVALS)
@pytest.mark.parametrize("way", ["state_dict", "state_dict of the start", "half", "double"])
def test_the_decay_resumes_after_anything_that_changes_the_buffers(kind, way):
    """The set is never lost, and the next step is the one that would have followed."""

    def run(interrupt):
        torch.manual_seed(1)
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pruner = Pruner(model, sparsity=0.6, removal=REMOVALS[kind][0]())
        start = copy.deepcopy((model.state_dict(), pruner.state_dict()))
        for step in range(STEPS + 2):
            if step == 4 and interrupt:
                if way in ("half", "double"):
                    model.to(torch.bfloat16 if way == "half" else torch.float64).float()
                else:
                    saved = io.BytesIO()
                    torch.save((model.state_dict(), pruner.state_dict()), saved)
                    if way.endswith("start"):  # and back again
                        model.load_state_dict(start[0])
                        pruner.load_state_dict(start[1])
                        pruner.hold()
                    weights, state = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
                    model.load_state_dict(weights)
                    pruner.load_state_dict(state)
            train(model, optimizer)
            pruner.step()
        sets = [target.module.weight_pruned.clone() for target in pruner.targets]
        pruner.finalize()
        return sets, [target.module.weight for target in pruner.targets]

    (sets, plain), (sets_after, resumed) = run(interrupt=False), run(interrupt=True)
    exact = way != "half"
    for one, other, before, after in zip(plain, resumed, sets, sets_after, strict=True):
        torch.testing.assert_close(one, other, rtol=0 if exact else 0.1, atol=0 if exact else 0.05)
        assert not exact or torch.equal(before, after)


@pytest.mark.parametrize("kind", [*REMOVALS, *LEARNING])
def test_the_bits_are_the_same_in_pieces(kind, monkeypatch):
    """Large tensors are changed piece by piece; also along a dimension in which they are not contiguous."""

    def run(entries):
        monkeypatch.setattr(masks, "PIECE", entries)
        torch.manual_seed(1)
        model = nn.Sequential(*network(), nn.Linear(4, 9))
        model[0].weight.data = model[0].weight.data.to(memory_format=torch.channels_last)
        optimizer = momentum(model)
        pruner = Pruner(model, sparsity=0.6, removal=(REMOVALS | LEARNING)[kind][0]())
        states = []
        for _ in range(STEPS + 1):
            train(nn.Sequential(*model[:4]), optimizer)
            pruner.step()
            states.append(copy.deepcopy(model.state_dict()))
        pruner.finalize()
        return [*states, model.state_dict()]

    for whole, parts in zip(run(masks.PIECE), run(5), strict=True):
        assert whole.keys() == parts.keys()
        assert all(same_bits(whole[name], parts[name]) for name in whole if whole[name] is not None)


def test_pieces_have_every_entry_once():
    numbers = torch.arange(7 * 3 * 2).view(7, 3, 2)
    for entries in (1, 6, 7, 13, 41, 42):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(masks, "PIECE", entries)
            found = list(masks.in_pieces(numbers, -numbers))
        assert torch.cat([one for one, _ in found]).equal(numbers)
        assert all(other.equal(-one) for one, other in found)
        assert max(one.numel() for one, _ in found) <= max(entries, 6)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_gradients_with_a_graph_and_sparse_ones_are_masked(factor):
    torch.manual_seed(0)
    keep = torch.rand(5, 4) > 0.5
    models = nn.Sequential(nn.Embedding(5, 4, sparse=True)), nn.Sequential(nn.Embedding(5, 4))
    for model in models:
        removal = Soft(10, lambda progress: factor if progress else 1.0)
        pruner = Pruner(model, ["0.weight"], keep=[keep], removal=removal)
        pruner.step()
        model(torch.tensor([1, 1, 4])).pow(2).sum().backward(create_graph=not model[0].sparse)
        grad = model[0].weight_orig.grad
        grad = grad.to_dense() if grad.is_sparse else grad
        assert (grad[~keep] == 0).all()
        assert (grad[keep] != 0).any()


def test_what_is_not_finite_does_not_survive_in_the_set():
    """Neither a gradient nor what an optimizer has made of an entry."""
    model = nn.Linear(2, 1, bias=False)
    pruner = Pruner(model, keep=[torch.tensor([[True, False]])], removal=Soft(4, "linear"))
    for _ in range(2):
        (model.weight.sum() * torch.inf).backward()
        assert model.weight_orig.grad.tolist() == [[torch.inf, 0.0]]
        model.zero_grad()
        with torch.no_grad():
            model.weight_orig[0, 1] = torch.nan
        pruner.step()
        assert torch.equal(model.weight[0, 1], (model.weight_start * model.weight_mask)[0, 1])


@pytest.mark.extended
@pytest.mark.parametrize(("kind", "bytes_an_entry"), [("hard", 5.2), ("exponential", 9.2), ("gradual soft", 13.2)])
def test_memory_beside_the_weights(kind, bytes_an_entry):
    """The mask, the set, bits of the latest choice, and what is decayed from; of cohorts also when an entry joined."""

    def living():
        gc.collect()
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if is_tensor(t)
        }
        return sum(storages.values())

    model = nn.Linear(256, 256, bias=False)
    before = living()
    pruner = Pruner(model, sparsity=0.5, removal=REMOVALS[kind][0]())
    for _ in range(5):
        model(torch.ones(1, 256)).sum().backward()
        model.zero_grad()
        pruner.step()
    assert living() - before <= bytes_an_entry * 256 * 256


def is_tensor(thing: object) -> bool:
    return type(thing) in (Tensor, nn.Parameter) and thing.layout == torch.strided and thing.device.type == "cpu"
