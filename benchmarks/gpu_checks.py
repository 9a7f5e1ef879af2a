"""The checks of gpu.py: each section computes something on the device and on the CPU, or twice, and compares.

What is promised of a GPU: the same weights give the same masks as on the CPU, by magnitude; a removal without training
between gives the same float32 weights, since each of its operations rounds once; a resumed loop ends with the bits of
one that was not interrupted, if the device repeats itself under deterministic algorithms; slim networks and files are
proven as on the CPU. Losses and trained weights are not promised to equal those of a CPU: sums are rounded differently.
"""

import copy
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_rows import Case, Row, Section, at_most, equal
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import compress
from compress import SFP, SRFP, Gradual, GradualSoft, GReg, Hard, Pruner, Removal, Soft
from compress.errors import ProofError
from compress.models import resnet20
from compress.proof import inputs_like, prove_same
from compress.select.choose import choose
from compress.select.pattern import Pattern

STEPS = 8
REMOVALS: Mapping[str, Callable[[], Removal]] = {
    "hard": Hard,
    "soft": lambda: Soft(STEPS),
    "soft, linear": lambda: Soft(STEPS, "linear"),
    "soft, learning": lambda: Soft(STEPS, learns=True),
    "gradual": lambda: Gradual(STEPS, 3),
    "gradual soft": lambda: GradualSoft(STEPS, 3, 3),
    "sfp": lambda: SFP(STEPS, 3),
    "srfp": lambda: SRFP(STEPS, 3),
    "greg": lambda: GReg(STEPS),
}
RATE = 0.125  # a power of two, so that an update rounds once, with a fused multiply-add or without


def small_network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 10))


def layers_of(pruner: Pruner) -> list[Any]:
    return [target.module for target in pruner.targets]


def misplaced(pruner: Pruner) -> int:
    """How many entries are zero and not in the set, or the reverse, once the pruner is finished."""
    pairs = [(layer, layer.weight_pruned.clone()) for layer in layers_of(pruner)]
    pruner.finalize()
    return sum(int(((layer.weight == 0) != pruned).sum()) for layer, pruned in pairs)


def train_on(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def batch(case: Case, seed: int = 1) -> tuple[Tensor, Tensor]:
    labels = torch.randint(10, (16,), generator=torch.Generator().manual_seed(seed))
    return case.draw(16, 3, 8, 8, seed=seed), labels.to(case.device)


def choice(case: Case) -> Iterator[Row]:
    """`choose` on the device and on the CPU: the same masks, for every float type, scope, ties, zeros of both signs."""
    count = case.size(1 << 25, 1 << 12)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        torch.manual_seed(0)
        scores = [torch.randn(size).to(dtype) for size in (count + 5, 1000, 24)]
        scores[0][::7] = 0.0
        scores[0][1::7] = -0.0
        scores[1][:9], scores[1][9:12] = torch.inf, -torch.inf
        there = [score.to(case.device) for score in scores]
        for scope in ("global", "layer", "erk"):
            here = choose(scores, 0.6, scope=scope)
            found = choose(there, 0.6, scope=scope)
            differing = sum(int((one != other.cpu()).sum()) for one, other in zip(here, found, strict=True))
            yield equal(f"{scope}, {dtype}: entries whose choice differs from the CPU's", differing, 0)
        groups = scores[0][: count // 8 * 8].view(8, -1)
        differs = Pattern(2, 4).pruned(groups, 1) != Pattern(2, 4).pruned(groups.to(case.device), 1).cpu()
        yield equal(f"2:4, {dtype}: entries whose choice differs", int(differs.sum()), 0)


def masks(case: Case) -> Iterator[Row]:
    """Every removal with the same updates on both devices: the same sets at each step, and the same float32 weights."""
    for dtype in (torch.float32, torch.bfloat16):
        for name, removal in REMOVALS.items():
            sets, weights = 0, 0.0
            runs = [_removed(removal(), dtype, torch.device(where)) for where in ("cpu", case.device)]
            for (one, plain), (other, there) in zip(*runs, strict=True):
                sets += sum(int((a != b).sum()) for a, b in zip(one, other, strict=True))
                weights = max(weights, *(float((a - b).abs().max()) for a, b in zip(plain, there, strict=True)))
            yield equal(f"{name}, {dtype}: entries of the sets that differ from the CPU's", sets, 0)
            what = f"{name}, {dtype}: largest difference of a weight"
            yield equal(what, weights, 0.0) if dtype == torch.float32 else Row(what, weights)


def _removed(removal: Removal, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """(sets, weights as they act) after each step, on the CPU; updates are drawn there."""
    model = small_network().to(device, dtype)
    pruner = Pruner(model, "*.weight", sparsity=0.7, removal=removal)
    drawn = torch.Generator().manual_seed(3)
    for _ in range(STEPS + 2):
        with torch.no_grad():
            for parameter in model.parameters():
                update = torch.randn(parameter.shape, generator=drawn).mul_(RATE * 0.1).to(dtype)
                parameter.add_(update.to(device))
        pruner.step()
        layers = layers_of(pruner)
        yield [layer.weight_pruned.cpu() for layer in layers], [layer.weight.detach().cpu() for layer in layers]


def slim(case: Case) -> Iterator[Row]:
    """A network with half of its nodes is slimmed on the device, and proven there; its sizes are the CPU's."""
    example = case.draw(2, 3, 32, 32)
    for layout in (torch.contiguous_format, torch.channels_last):
        model = _alive(resnet20(), example).to(memory_format=layout)
        given = example.to(memory_format=layout)
        masked = copy.deepcopy(model)
        Pruner(masked, compress.nodes("*"), sparsity=0.5, example=given, criterion="norms").finalize()
        small = compress.slim(masked, given)
        word = str(layout).removeprefix("torch.")
        with torch.no_grad():
            difference = float((small(given) - masked(given)).abs().max() / masked(given).abs().max())
        yield at_most(f"{word}: largest difference of slim's outputs, relative", difference, case.tolerance)
        wide = [weight for weight in small.parameters() if weight.dim() == 4 and weight[0, 0].numel() > 1]
        kept = all(weight.is_contiguous(memory_format=layout) for weight in wide)
        yield equal(f"{word}: the weights keep this format", kept, True)
        yield equal(f"{word}: the weights are on the device", {w.device.type for w in wide} == {case.device.type}, True)
        shapes = [tuple(weight.shape) for weight in small.parameters()]
        here = [tuple(weight.shape) for weight in compress.slim(masked.cpu(), given.cpu()).parameters()]
        yield equal(f"{word}: the widths are those of slimming on the CPU", shapes == here, True)


def _alive(model: nn.Module, example: Tensor) -> nn.Module:
    """On the device of the example, with statistics of it in the norms, so that outputs depend on inputs."""
    model = model.to(example.device).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.cat([example, example.flip(-1), 2 * example]))
    return model.eval()


def proof(case: Case) -> Iterator[Row]:
    """A network with one changed weight is refused, on the device; an equal one is not."""
    example = compress.Inputs((case.draw(2, 3, 8, 8),))
    model = small_network().to(case.device).eval()
    same, other = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        other[4].weight[3, 5] += 1.0
    for name, candidate in (("equal", same), ("one weight differs", other)):
        try:
            prove_same(model, candidate, inputs_like(model, example, (2, 5)), 1e-5)
            found = "passes"
        except ProofError:
            found = "refused"
        yield equal(name, found, "passes" if candidate is same else "refused")


def onnx(case: Case) -> Iterator[Row]:
    """The slim network's file, written from a copy on the CPU; and onnxruntime's CUDA provider, where there is one."""
    import onnxruntime

    example = case.draw(2, 3, 8, 8)
    model = small_network().to(case.device).eval()
    Pruner(model, compress.nodes("0", "2"), sparsity=0.5, example=example).finalize()
    small = compress.slim(model, example)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slim.onnx"
        compress.export.onnx(copy.deepcopy(small).cpu(), file, example.cpu())
        available = onnxruntime.get_available_providers()
        for provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
            if provider not in available:
                yield Row(provider, "this onnxruntime does not have it")
                continue
            session = onnxruntime.InferenceSession(str(file), providers=[provider])
            yield equal(f"{provider}: it runs there", session.get_providers()[0], provider)
            (found,) = session.run(None, {"input": example.cpu().numpy()})
            with torch.no_grad():
                wanted = small(example).cpu()
            difference = float((torch.from_numpy(found) - wanted).abs().max() / wanted.abs().max())
            yield at_most(
                f"{provider}: largest difference to torch on the device, relative", difference, case.tolerance
            )


def resume(case: Case) -> Iterator[Row]:
    """A loop saved at step 4 and continued in new objects ends with the bits of one that was not interrupted.

    The control says whether the device repeats itself at all: two loops that were not interrupted.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for name, removal in REMOVALS.items():
            one, two, resumed = (_trained(case, removal(), interrupted) for interrupted in (False, False, True))
            yield equal(f"{name}: a second run, weights that differ", _differing(one, two), 0)
            yield equal(f"{name}: a resumed run, weights that differ", _differing(one, resumed), 0)
    finally:
        torch.use_deterministic_algorithms(before)


def _differing(one: nn.Module, other: nn.Module) -> int:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return sum(int((a != b).sum()) for a, b in pairs)


def _trained(case: Case, removal: Removal, interrupted: bool) -> nn.Module:
    def made(start: bool) -> tuple[nn.Module, Pruner, torch.optim.Optimizer]:
        model = small_network().to(case.device)
        pruner = Pruner(model, "*.weight", sparsity=0.7, removal=removal, start=start)
        return model, pruner, torch.optim.AdamW(model.parameters(), lr=1e-2)

    model, pruner, optimizer = made(start=True)
    for step in range(STEPS + 2):
        if interrupted and step == 4:
            file = io.BytesIO()
            torch.save([part.state_dict() for part in (model, pruner, optimizer)], file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
            model, pruner, optimizer = made(start=False)
            parts: tuple[Any, ...] = (model, pruner, optimizer)
            for part, state in zip(parts, saved, strict=True):
                part.load_state_dict(state)
        given, labels = batch(case, seed=step)
        train_on(F.cross_entropy(model(given), labels))
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    return model


def bfloat16(case: Case) -> Iterator[Row]:
    """Training under autocast, and of a network of bfloat16: exactly the entries of the set are zero in the end."""
    for word, dtype, autocast in (
        ("autocast", torch.float32, True),
        ("weights of bfloat16", torch.bfloat16, False),
    ):
        model = small_network().to(case.device, dtype)
        pruner = Pruner(model, "*.weight", sparsity=0.7, removal=Soft(STEPS, "linear"))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        given, labels = batch(case)
        for _ in range(STEPS):
            with torch.autocast(case.device.type, torch.bfloat16, enabled=autocast):
                loss = F.cross_entropy(model(given.to(dtype)), labels)
            train_on(loss)
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()
        wrong = misplaced(pruner)
        yield equal(f"{word}: entries that are zero and not in the set, or the reverse", wrong, 0)
        yield equal(f"{word}: the weights' type", str(next(model.parameters()).dtype), str(dtype))


def compiled(case: Case) -> Iterator[Row]:
    """A compiled network under soft removal computes what it does without, at each step, and is compiled once."""
    torch._dynamo.reset()
    model = small_network().to(case.device)
    pruner = Pruner(model, "*.weight", sparsity=0.7, removal=Soft(STEPS, "linear"))
    counter = CompileCounterWithBackend(case.size("inductor", "aot_eager"))
    network: Any = torch.compile(model, backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    given, labels = batch(case)
    worst = 0.0
    for _ in range(STEPS + 2):
        output = network(given)
        with torch.no_grad():
            plain = model(given)
        worst = max(worst, float((output.detach() - plain).abs().max() / plain.abs().max()))
        train_on(F.cross_entropy(output, labels))
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    yield at_most("largest difference of an output, relative", worst, case.tolerance)
    yield equal("graphs that were compiled", counter.frame_count, 1)
    wrong = misplaced(pruner)
    yield equal("entries that are zero and not in the set, or the reverse", wrong, 0)


def graphs(case: Case) -> Iterator[Row]:
    """A training step as a CUDA graph: the pruner's step follows each replay; within the graph, factors stand still."""
    case.require_gpu()
    for inside in (False, True):
        model, pruner, replay = _captured(case, inside)
        layer = layers_of(pruner)[0]
        mask, pruned = layer.weight_mask, layer.weight_pruned.clone()
        replay()  # to capture is not to compute
        if not inside:
            pruner.step()
        first = float(mask[pruned].max())
        for _ in range(STEPS - 1):
            replay()
            if not inside:
                pruner.step()
        torch.cuda.synchronize()
        if inside:
            last = float(mask[pruned].max())
            yield equal("step() in the graph: the factor stands still", last == first and 0 < first < 1, True)
            continue
        wrong = misplaced(pruner)
        yield equal("step() after each replay: entries zero and not in the set, or the reverse", wrong, 0)
        yield equal("step() after each replay: weights are finite", bool(model[4].weight.isfinite().all()), True)


def _captured(case: Case, inside: bool) -> tuple[Any, Pruner, Callable[[], None]]:
    """A network in training, its pruner, and what replays one step of it."""
    model = small_network().to(case.device)
    pruner = Pruner(model, "*.weight", sparsity=0.7, removal=Soft(3 * STEPS if inside else STEPS, "linear"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    given, labels = batch(case)

    def step() -> None:
        train_on(F.cross_entropy(model(given), labels))
        optimizer.step()
        if inside:
            pruner.step()

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()
    return model, pruner, graph.replay


def scaler(case: Case) -> Iterator[Row]:
    """AMP with a GradScaler: a skipped step changes no kept weight, and the removal ends on time."""
    model = small_network().to(case.device)
    pruner = Pruner(model, "*.weight", sparsity=0.7, removal=Soft(STEPS, "linear"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    amp = torch.amp.GradScaler(case.device.type, init_scale=256.0)
    given, labels = batch(case)
    layer = layers_of(pruner)[0]
    kept = ~layer.weight_pruned
    skipped, moved = 0, 0
    for step in range(STEPS):
        before = layer.weight.detach().clone()
        with torch.autocast(case.device.type, torch.float16):
            loss = F.cross_entropy(model(given), labels)
        train_on(amp.scale(loss * (torch.inf if step == 3 else 1.0)))
        amp.step(optimizer)
        scale = amp.get_scale()
        amp.update()
        optimizer.zero_grad()
        pruner.step()
        if amp.get_scale() < scale:
            skipped += 1
            moved += int((layer.weight[kept] != before[kept]).sum())
    yield equal("steps that the scaler skipped", skipped, 1)
    yield equal("kept weights that a skipped step changed", moved, 0)
    yield equal("steps of the pruner", pruner.steps_done, STEPS)
    wrong = misplaced(pruner)
    yield equal("entries that are zero and not in the set, or the reverse", wrong, 0)


def waiting(case: Case) -> Iterator[Row]:
    """Between two selections, `Pruner.step` asks the device for nothing: profiled, and torch raises if it does."""
    pruners = []
    for removal in REMOVALS.values():
        model = small_network().to(case.device)
        pruners.append(Pruner(model, "*.weight", sparsity=0.7, removal=removal()))
    with torch.profiler.profile() as profile:
        for pruner in pruners:
            for _ in range(2):  # removals that select do so at the third step
                _forbidding(case, pruner.step)
    names = ("aten::item", "aten::_local_scalar_dense", "aten::nonzero", "cudaStreamSynchronize")
    found = sum(event.count for event in profile.key_averages() if event.key in names)
    yield equal("reads of values in two steps of every removal", found, 0)


def _forbidding(case: Case, step: Callable[[], None]) -> None:
    if not case.on_gpu:
        step()
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


CHECKS: Mapping[str, Section] = {
    "choice": choice,
    "masks": masks,
    "waiting": waiting,
    "resume": resume,
    "slim": slim,
    "proof": proof,
    "onnx": onnx,
    "bfloat16": bfloat16,
    "torch.compile": compiled,
    "CUDA graphs": graphs,
    "GradScaler": scaler,
}
