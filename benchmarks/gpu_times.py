"""The times of gpu.py: training steps, selections, slim networks, and N:M patterns by torch's semi-structured tensors.

Ways take turns, and a ratio is the median over the rounds of the round's own ratio.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_rows import Case, Row, Section, at_most, equal, milliseconds, ratio
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision.models import VisionTransformer, resnet18, resnet50, vit_b_16

import compress
from compress import GradualSoft, Hard, Pruner, Removal, Soft
from compress.proof import ConstantOutputsWarning
from compress.select.choose import LayerCollapseWarning, choose
from compress.select.criteria.magnitude import magnitude
from compress.select.pattern import Pattern
from compress.select.scores import Scores
from compress.select.targets import resolve, weights

FOREVER = 1_000_000  # steps: no removal is over within the benchmark
PLAIN, HOOKS = "no pruning", "torch.nn.utils.prune"
WAYS: Mapping[str, tuple[Callable[[], Removal], bool]] = {
    "soft": (lambda: Soft(steps=FOREVER), True),
    "soft, gradients unmasked": (lambda: Soft(steps=FOREVER), False),
    "hard": (Hard, True),
    "gradual soft": (lambda: GradualSoft(steps=FOREVER, every=FOREVER // 2, cohort=100), True),
}
"""The removal, and whether gradients are masked."""

SPARSITY = 0.9


@dataclass(frozen=True)
class Network:
    """rows: a batch of its training. side: of its pictures. pruned: of its weights, in training.

    torch's hooks cannot prune the weights of its MultiheadAttention, which reads one of them without calling its layer.
    """

    name: str
    build: Callable[[], nn.Module]
    side: int
    rows: int
    pruned: str = "*"


def convolutions(case: Case) -> Network:
    sizes = Network("ResNet-50", resnet50, 224, 64), Network("ResNet-18", resnet18, 32, 2)
    return sizes[case.quick]


def attention(case: Case) -> Network:
    small = partial(VisionTransformer, 32, 8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)
    sizes = Network("ViT-B/16", vit_b_16, 224, 32, "*.mlp.*"), Network("a small ViT", small, 32, 2, "*.mlp.*")
    return sizes[case.quick]


def built(case: Case, network: Network) -> nn.Module:
    """With random weights of a seed; norms have statistics, and a head that is not zero, so that outputs vary."""
    torch.manual_seed(0)
    model = network.build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("heads", "fc")):
                parameter.normal_(std=0.02)
    model.to(case.device).train()
    with torch.no_grad():
        for seed in range(5):
            model(case.draw(8, 3, network.side, network.side, seed=seed))
    return model


def steps_of_convolutions(case: Case) -> Iterator[Row]:
    """A training step of a ResNet with each way of pruning, beside one without and one with torch's hooks."""
    return _steps(case, convolutions(case))


def steps_of_attention(case: Case) -> Iterator[Row]:
    """The same of a ViT."""
    return _steps(case, attention(case))


def _steps(case: Case, network: Network) -> Iterator[Row]:
    model, given = built(case, network), case.draw(network.rows, 3, network.side, network.side)
    steps = {way: _training_step(copy.deepcopy(model), given, way, network.pruned) for way in (PLAIN, HOOKS, *WAYS)}
    found = milliseconds(case, steps, rounds=case.size(12, 2), runs=case.size(2, 1))
    for way, times in found.items():
        row = {"milliseconds": median(times), "ratio": ratio(found, way, PLAIN)}
        yield Row(f"{network.name}, batch {network.rows}: {way}", {**row, "to hooks": ratio(found, way, HOOKS)})


def _training_step(network: nn.Module, given: Tensor, way: str, pruned: str) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    pruner = None
    if way == HOOKS:
        places = [(target.module, target.name) for target in resolve(network, weights(pruned))]
        prune.global_unstructured(places, prune.L1Unstructured, amount=SPARSITY)
    elif way != PLAIN:
        removal, masked = WAYS[way]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerCollapseWarning)
            pruner = Pruner(network, pruned, sparsity=SPARSITY, removal=removal(), mask_gradients=masked)

    def step() -> None:
        network(given).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if pruner is not None:
            pruner.step()

    return step


def selection(case: Case) -> Iterator[Row]:
    """The exact choice of the smallest of 1 and 8 thousand million weights: seconds, memory, and that it is exact."""
    billion = case.size(10**9, 10**5)
    for dtype, count in ((torch.float32, billion), (torch.bfloat16, billion), (torch.bfloat16, 8 * billion)):
        size = billion // 5  # of a tensor
        tensors = []
        for seed in range(count // size):
            generator = torch.Generator(case.device).manual_seed(seed)
            values = torch.empty(size, dtype=dtype, device=case.device)
            tensors.append(values.normal_(0, 0.02, generator=generator))
        scores = [Scores(magnitude, tensor) for tensor in tensors]
        keep: list[Tensor] = []

        def run(scores: list[Scores] = scores, keep: list[Tensor] = keep) -> None:
            keep.clear()
            keep.extend(choose(scores, SPARSITY))

        run()  # the masks are in memory
        before = _memory(case)
        found = milliseconds(case, {"choose": run}, rounds=3, runs=1, warm=0)
        name = f"{count:.0e} weights, {dtype}"
        yield Row(f"{name}: seconds", median(found["choose"]) / 1000)
        if case.on_gpu:
            beside = (torch.cuda.max_memory_allocated(case.device) - before) / (count * dtype.itemsize)
            yield Row(f"{name}: memory beside weights and first masks, as a share of the weights", beside)
        kept = sum(int(mask.count_nonzero()) for mask in keep)
        yield equal(f"{name}: kept", kept, count - round(SPARSITY * count))
        pairs = list(zip(tensors, keep, strict=True))
        lowest = min(float(tensor.abs().masked_fill_(~mask, torch.inf).min()) for tensor, mask in pairs)
        highest = max(float(tensor.abs().masked_fill_(mask, 0.0).max()) for tensor, mask in pairs)
        yield equal(f"{name}: no pruned weight is larger than a kept one", highest <= lowest, True)
        del tensors, scores, keep, run, pairs


def _memory(case: Case) -> int:
    """Bytes in use, from where the peak is counted."""
    if not case.on_gpu:
        return 0
    torch.cuda.reset_peak_memory_stats(case.device)
    return torch.cuda.memory_allocated(case.device)


def latency_of_convolutions(case: Case) -> Iterator[Row]:
    """A ResNet, dense and slim: half of the multiply-adds, widths in steps of 8."""
    return _latency(case, convolutions(case))


def latency_of_attention(case: Case) -> Iterator[Row]:
    """The same of a ViT."""
    return _latency(case, attention(case))


def _latency(case: Case, network: Network) -> Iterator[Row]:
    example = case.draw(2, 3, network.side, network.side)
    dense = built(case, network).eval()
    masked = copy.deepcopy(dense)
    target = compress.nodes("*")
    Pruner(masked, target, macs=0.5, example=example, criterion="norms", multiple_of=8).finalize()
    for dtype in (torch.float32, torch.bfloat16):
        dense, masked = dense.to(dtype), masked.to(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantOutputsWarning)
            models = {"dense": dense, "slim": compress.slim(masked, example.to(dtype))}
        sizes = [sum(entry.numel() for entry in model.parameters()) for model in models.values()]
        yield Row(f"{network.name}, {dtype}: parameters of slim, as a share of dense", sizes[1] / sizes[0])
        for rows in (1, case.size(64, 4)):
            given = case.draw(rows, 3, network.side, network.side).to(dtype)
            for runtime, ways in _runtimes(case, models, given):
                found = milliseconds(case, ways, rounds=case.size(20, 2), runs=case.size(5, 1))
                row = {**{way: median(times) for way, times in found.items()}, "ratio": ratio(found, "slim", "dense")}
                yield Row(f"{network.name}, {dtype}, batch {rows}, {runtime}: milliseconds", row)


def _runtimes(
    case: Case, models: Mapping[str, nn.Module], given: Tensor
) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """Each with what runs the models in it: files are of float32, and networks are compiled in bfloat16."""
    yield "torch", {name: partial(_run, model, given) for name, model in models.items()}
    if given.dtype == torch.bfloat16:
        torch._dynamo.reset()
        backend = case.size("inductor", "aot_eager")
        fast = {name: torch.compile(model, backend=backend, dynamic=False) for name, model in models.items()}
        yield "compiled", {name: partial(_run, model, given) for name, model in fast.items()}
        return
    import onnxruntime

    if case.on_gpu and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with tempfile.TemporaryDirectory() as folder:
            sessions = {name: _session(model, given, Path(folder) / name) for name, model in models.items()}
            yield "onnxruntime CUDA", sessions


@torch.no_grad()
def _run(model: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    return model(given)


def _session(model: nn.Module, given: Tensor, file: Path) -> Callable[[], object]:
    """Runs the network's file with inputs and outputs on the GPU."""
    import onnxruntime

    compress.export.onnx(copy.deepcopy(model).cpu(), file.with_suffix(".onnx"), given[:2].cpu())
    session = onnxruntime.InferenceSession(str(file.with_suffix(".onnx")), providers=["CUDAExecutionProvider"])
    binding: Any = session.io_binding()
    binding.bind_ortvalue_input("input", onnxruntime.OrtValue.ortvalue_from_numpy(given.cpu().numpy(), "cuda", 0))
    binding.bind_output("output", "cuda")
    return partial(session.run_with_iobinding, binding)


def patterns(case: Case) -> Iterator[Row]:
    """A 2:4 weight as torch's semi-structured tensor: the outputs of the weight with zeros, and the time."""
    case.require_gpu()
    from torch.sparse import to_sparse_semi_structured

    for inputs, outputs in ((768, 3072), (4096, 4096), (8192, 8192)):
        torch.manual_seed(0)
        dense = nn.Linear(inputs, outputs, bias=False).to(case.device, torch.bfloat16)
        Pruner(dense, "weight", scope=Pattern(2, 4)).finalize()
        share = float((dense.weight == 0).float().mean())
        yield equal(f"{inputs} x {outputs}: zeros", share, 0.5)
        sparse = copy.deepcopy(dense)
        sparse.weight = nn.Parameter(to_sparse_semi_structured(dense.weight.detach()))
        for rows in (64, 4096):
            given = case.draw(rows, inputs).bfloat16()
            ways = {"dense": partial(_run, dense, given), "2:4": partial(_run, sparse, given)}
            one, other = (run() for run in ways.values())
            difference = float((one - other).abs().max() / one.abs().max())
            yield at_most(f"{inputs} x {outputs}, {rows} rows: largest difference, relative", difference, 2e-2)
            found = milliseconds(case, ways, rounds=20, runs=20)
            row = {**{way: median(times) for way, times in found.items()}, "ratio": ratio(found, "2:4", "dense")}
            yield Row(f"{inputs} x {outputs}, {rows} rows: milliseconds", row)


TIMES: Mapping[str, Section] = {
    "steps of convolutions": steps_of_convolutions,
    "steps of attention": steps_of_attention,
    "selection": selection,
    "N:M": patterns,
    "latency of convolutions": latency_of_convolutions,
    "latency of attention": latency_of_attention,
}
