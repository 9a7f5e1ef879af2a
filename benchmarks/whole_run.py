"""Times a whole run, beside a loop written by hand, and beside the fastest such loop.

    python benchmarks/whole_run.py --data-root DIR
    python benchmarks/whole_run.py --data-root DIR --processor --threads 1
    python benchmarks/whole_run.py --quick

The recipe is mnist_latent: 5 epochs of retraining after pruning three quarters of the latent nodes. Every run is a
process, timed from outside, the start of Python included; they take turns. All have the same images,
epochs, batch size, loss, optimizer and schedule, start from the same weights, evaluate on the test images at the end,
and write the weights. Beside that

- apply chooses the nodes by principal axes, lets them decay, evaluates three networks, cuts, proves, writes ONNX,
  safetensors and `.pt2`, proves those, and times three networks.
- apply, no export does the same without the three files, their proofs, and timing.
- by hand prunes by `torch.nn.utils.prune.ln_structured` and trains on torchvision's MNIST with its transforms, through
  a DataLoader as it is by default.
- in memory prunes in the same way and trains on tensors that were normalised at the start, with a fused optimizer; it
  looks at the loss once in an epoch.
- in memory, compiled is that with `torch.compile` (a C++ compiler must be there), with nothing compiled before.

Without --data-root the images are those of mnist_sample, repeated up to MNIST's 60,000 and 10,000: this
measures time, not quality.

With --processor the seconds are those of the processor, of a process and of those that it starts, which other
processes on the machine disturb less. Nothing is compiled then, since the compiler's workers would not count.

The plot shows the seconds over the number of training images, with the exponent of the power law through them.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "whole_run.json"
EPOCHS, BATCH, RATE, DECAY, PRUNED = 5, 64, 1.5e-3, 1e-4, 0.75  # of the recipe; `measure` checks that
MEAN, STD = 0.1307, 0.3081
WAYS = ("apply", "apply, no export", "by hand", "in memory", "in memory, compiled")

app = typer.Typer()
ModelArgument = Annotated[Path, typer.Argument(help="The dense weights, as .pt.")]
FolderArgument = Annotated[Path, typer.Argument(help="Where MNIST/raw lies.")]
OutArgument = Annotated[Path, typer.Argument(help="The file for the weights.")]
TrainOption = Annotated[int, typer.Option(min=1000, max=60_000, help="Training images, from the first on.")]


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    data_root: Annotated[
        Path | None, typer.Option(envvar="COMPRESS_DATA", help="Where MNIST lies; mnist_sample if absent.")
    ] = None,
    sizes: Annotated[
        str,
        typer.Option("--sizes", metavar="LIST", help="Training images, from the first on; the table is of the most."),
    ] = "10000,20000,50000",
    runs: Annotated[int, typer.Option(min=1, help="How often each way with the most images; in turns.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = os.cpu_count() or 1,
    processor: Annotated[bool, typer.Option("--processor", help="Count processor time; nothing compiled.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One run, with two fifths of the images; nothing compiled.")
    ] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Time all ways in turns; print a table, draw the growth, and write it all as JSON."""
    if context.invoked_subcommand:
        return
    ways = WAYS[:-1] if quick or processor else WAYS  # compiling takes longer than all the rest of a short run
    clock = spent if processor else time.perf_counter
    counts, runs = ([20_000], 1) if quick else (sorted(map(int, sizes.split(","))), runs)
    with tempfile.TemporaryDirectory() as scratch:
        cpu = prepared(Path(scratch))
        root = data_root or stand_in(Path(scratch))
        seconds = {
            train: in_turns(ways, Path(scratch), root, train, threads, runs if train == counts[-1] else 1, clock)
            for train in counts
        }
    document: dict[str, Any] = {
        "recipe": "mnist_latent",
        "data": "mnist" if data_root else "mnist_sample, repeated",
        "train": counts[-1],
        "runs": runs,
        "clock": "processor" if processor else "wall",
        "machine": {"cpu": cpu, "threads": threads, "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("softprune", "torch", "torchvision")},
        "seconds": {way: statistics.median(found) for way, found in seconds[counts[-1]].items()},
        "times_as_long": ratios(seconds[counts[-1]]),
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    if len(counts) > 1:
        document["growth"] = growth(seconds)
        draw(document, report)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    show(document)


def in_turns(
    ways: Sequence[str], scratch: Path, root: Path, train: int, threads: int, runs: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every run, by way."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(runs):
        for way in ways:
            seconds[way].append(timed(command(way, scratch, root, train), threads, clock))
            print(f"{train:,} images, run {number + 1} of {runs}, {way}: {seconds[way][-1]:.1f} s", file=sys.stderr)
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """How many times as long as a way the other two take, as the median over the rounds."""
    return {
        way: {
            other: statistics.median(theirs / mine for mine, theirs in zip(seconds[way], seconds[other], strict=True))
            for other in ("by hand", "in memory")
        }
        for way in seconds
    }


def growth(seconds: dict[int, dict[str, list[float]]]) -> dict[str, Any]:
    """Seconds by the number of training images, and the exponents by least squares of the logarithms."""
    import numpy as np

    found = {way: [statistics.median(ways[way]) for ways in seconds.values()] for way in next(iter(seconds.values()))}
    exponents = {way: float(np.polyfit(np.log(list(seconds)), np.log(of), 1)[0]) for way, of in found.items()}
    return {"train": list(seconds), "seconds": found, "exponents": exponents}


def draw(document: dict[str, Any], report: Path) -> None:
    from compress.report import plots

    figure, axes = plots.canvas()
    found = document["growth"]
    for number, (way, seconds) in enumerate(found["seconds"].items()):
        label = f"{way}: n^{found['exponents'][way]:.2f}"
        axes.plot(found["train"], seconds, label=label, marker="o", color=plots.style(number)[0])
    axes.set(xlabel="training images", ylabel="seconds of the whole process", xlim=0, ylim=0)
    axes.legend()
    for suffix in (".svg", ".png"):
        plots.save(figure, report.stem, report.with_suffix(suffix))


def show(document: dict[str, Any]) -> None:
    machine = document["machine"]
    print(
        f"seconds ({document['clock']}) of a whole process, {document['train']:,} images of {document['data']}, "
        f"{machine['threads']} thread(s), {document['runs']} run(s)"
    )
    print(f"{'':<20}{'seconds':>10}{'by hand / it':>16}{'it / in memory':>16}")
    for way, median in document["seconds"].items():
        times = document["times_as_long"][way]
        print(f"{way:<20}{median:10.1f}{times['by hand']:16.2f}{1 / times['in memory']:16.2f}")
    for way, exponent in document.get("growth", {}).get("exponents", {}).items():
        print(f"{way}: seconds ~ images^{exponent:.2f}")


def command(way: str, scratch: Path, root: Path, train: int) -> list[str]:
    """The process of a way, whose output replaces that of the one before."""
    model = str(scratch / "model.pt")
    if way.startswith("apply"):
        settings = ["--set", f"data.train={train}", *(["--set", "export=[]"] if way != "apply" else [])]
        apply = [
            "apply",
            "mnist_latent",
            model,
            "-o",
            str(scratch / "out"),
            "--force",
            "--json",
            "--data-root",
            str(root),
        ]
        return [sys.executable, "-m", "compress.cli", *apply, *settings]
    loop, _, compiled = way.partition(", ")
    wanted = [loop.replace(" ", "-"), model, str(root), str(scratch / "loop.pt"), "--train", str(train)]
    return [sys.executable, __file__, *wanted, *(["--compile"] if compiled else [])]


def spent() -> float:
    """Processor seconds of all processes that have ended which this one, or one of them, started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(arguments: list[str], threads: int, clock: Callable[[], float]) -> float:
    with tempfile.TemporaryDirectory() as compiled:  # or only the first of all runs would wait for the compiler
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": compiled}
        started = clock()
        subprocess.run(arguments, stdout=subprocess.DEVNULL, check=True, env=environment)
        return clock() - started


def prepared(scratch: Path) -> str:
    """The dense weights, in the folder; returns the processor's name."""
    from compress.files.checkpoint import write_weights
    from compress.recipe.loading import load_recipe
    from compress.run.building import build_model
    from compress.run.provenance import cpu_name

    recipe = load_recipe("mnist_latent")
    (stage,) = recipe.stages
    settings = stage.retrain
    assert settings is not None
    found = (settings.epochs, settings.batch_size, settings.lr, settings.weight_decay, stage.goes)
    assert found == (EPOCHS, BATCH, RATE, DECAY, PRUNED), "the loops must do what the recipe does"
    assert (settings.optimizer, settings.lr_schedule, settings.trainable) == ("adamw", "cosine", "all")
    write_weights(build_model(recipe.model, 0).state_dict(), scratch / "model.pt")
    return cpu_name()


def stand_in(root: Path) -> Path:
    """mnist_sample's digits, repeated, as the four idx files of MNIST below the folder `root`, which is returned."""
    from compress.data.sources import mnist_sample

    sample, folder = mnist_sample(), root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, name, count in ((sample.train, "train", 60_000), (sample.test, "t10k", 10_000)):
        times = count // len(split.labels)
        for tensor, kind, sizes in (
            (split.images, "images-idx3", (count, 28, 28)),
            (split.labels.byte(), "labels-idx1", (count,)),
        ):
            magic = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
            (folder / f"{name}-{kind}-ubyte").write_bytes(magic + tensor.numpy().tobytes() * times)
    return root


@app.command("by-hand")
def by_hand(model: ModelArgument, folder: FolderArgument, out: OutArgument, train: TrainOption = 50_000) -> None:
    """The loop as tutorials have it."""
    import torch
    import torch.nn.functional as F
    from torch.nn.utils import prune
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    from compress.models import autoencoder

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    images = Subset(datasets.MNIST(folder, train=True, transform=transform), range(train))
    loader = DataLoader(images, batch_size=BATCH, shuffle=True)
    tests = DataLoader(datasets.MNIST(folder, train=False, transform=transform), batch_size=250)
    network = autoencoder()
    network.load_state_dict(torch.load(model, weights_only=True))
    latent = network.get_submodule("latent")
    prune.ln_structured(latent, "weight", amount=PRUNED, n=2, dim=0)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * len(loader))
    for epoch in range(EPOCHS):
        total = 0.0
        for inputs, _ in loader:
            optimizer.zero_grad()
            loss = F.mse_loss(network(inputs), inputs * STD + MEAN)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            total += loss.item()
        print(epoch, total / len(loader))
    prune.remove(latent, "weight")  # type: ignore[no-untyped-call]
    with torch.no_grad():
        print(sum(F.mse_loss(network(inputs), inputs * STD + MEAN).item() for inputs, _ in tests) / len(tests))
    torch.save(network.state_dict(), out)


@app.command("in-memory")
def in_memory(
    model: ModelArgument,
    folder: FolderArgument,
    out: OutArgument,
    train: TrainOption = 50_000,
    compiled: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
) -> None:
    """The fastest loop that does the same."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import Tensor
    from torch.nn.utils import prune

    from compress.models import autoencoder

    def read(name: str, count: int) -> Tensor:
        file = folder / "MNIST" / "raw" / f"{name}-images-idx3-ubyte"
        pixels = torch.from_numpy(np.fromfile(file, np.uint8, count * 784, offset=16))
        return pixels.view(-1, 1, 28, 28).float().div_(255)

    targets, tests = read("train", train), read("t10k", 10_000)
    images = (targets - MEAN) / STD
    network = autoencoder()
    network.load_state_dict(torch.load(model, weights_only=True))
    latent = network.get_submodule("latent")
    prune.ln_structured(latent, "weight", amount=PRUNED, n=2, dim=0)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    steps = -(-train // BATCH)
    run: Callable[[Tensor], Tensor] = torch.compile(network) if compiled else network
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * steps)
    for epoch in range(EPOCHS):
        for rows in torch.split(torch.randperm(train), BATCH):
            loss = F.mse_loss(run(images.index_select(0, rows)), targets.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
        print(epoch, loss.item())
    prune.remove(latent, "weight")  # type: ignore[no-untyped-call]
    with torch.no_grad():
        batches = torch.split(tests, 250)
        print(sum(F.mse_loss(network((batch - MEAN) / STD), batch).item() for batch in batches) / len(batches))
    torch.save(network.state_dict(), out)


if __name__ == "__main__":
    app()
