"""A recipe from beginning to end: train the dense network; prune it stage by stage, slim, prove, write, time."""

import dataclasses
import gc
import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

import compress.export
from compress import chance, stats
from compress.aside import Shelved
from compress.atomic import atomic
from compress.checkpoint import write_weights
from compress.data import Dataset, Part
from compress.errors import DivergedError, InputError
from compress.export import latency
from compress.export.card import model_card
from compress.ranks import ALONE, Ranks
from compress.recipe import rehearsal, schema
from compress.recipe.building import (
    build_data,
    build_model,
    build_task,
    choose_device,
    require_fit,
    require_inputs,
    trained_model,
)
from compress.recipe.checkpoints import Fingerprint
from compress.recipe.choice import Pruned
from compress.recipe.clock import Clock
from compress.recipe.journal import Journal
from compress.recipe.loading import resolved_yaml
from compress.recipe.output import whole_folder
from compress.recipe.pictures import Look, compared
from compress.recipe.setting import Setting, Watcher, optimization
from compress.recipe.stages import describe_target, run_stage
from compress.report.page import page
from compress.slim.edits import apply_edits, edits_from_json, edits_to_json
from compress.slim.proof import prove_same
from compress.slim.shrink import slim
from compress.streaming import StreamedDataset

TOLERANCE = 1e-5

Networks = dict[str, Callable[[], nn.Module]]
"""The three networks that every result compares, "dense", "masked" and "slim", on the CPU. What gives them may read
them anew each time, so that no more of them are in memory than are looked at."""

PACKAGES = ("softprune", "torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "safetensors", "numpy")


def prepare(
    recipe: schema.Recipe,
    data_root: Path,
    device: str,
    watcher: Watcher,
    clock: Clock,
    journal: Journal | None = None,
    ranks: Ranks = ALONE,
) -> Setting:
    """Load the data and check that it fits the recipe's network.

    Args:
        journal: what keeps the run, so that it can be gone on with.
        ranks: this process among those that train together.

    Raises:
        DataError, InputError: it is not there, does not fit, or there is no such device.
    """
    chosen, task = choose_device(device), build_task(recipe.task)
    with clock.phase("data"), ranks.first_before_others():
        dataset = build_data(recipe.data, data_root)
    require_fit(recipe, dataset)
    journal = journal or Journal()
    return Setting(dataset, task, recipe.data.batch_size, chosen, recipe.seed, watcher, clock, journal, ranks)


def train_dense(recipe: schema.Recipe, out: Path, setting: Setting) -> dict[str, Any]:
    """Train the recipe's network from the start and write its state_dict to `out`.

    Returns:
        What was done: data, steps, seconds, mean loss of each epoch, metric on the test images.

    Raises:
        InputError: the recipe has no `train` section.
        DivergedError: the loss became NaN; the last good weights are beside `out`.
        Interrupted: by a signal.
    """
    if recipe.train is None:
        raise InputError(f"the recipe {recipe.name} has no train section: it takes a network that is trained already")
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.model, recipe.seed).to(setting.device)
    require_inputs(model, setting.example, recipe.model)
    steps = recipe.train.epochs * setting.steps_per_epoch
    settings, journal = recipe.train, setting.journal
    journal.open(_fingerprint(recipe, None, setting), setting.clock)
    setting.ranks.wait()  # before the first writes, all have read what there is to go on from
    journal.follow("clock", setting.clock)
    journal.follow("model", model)
    journal.follow("chance", chance)
    with _keep_last_good(model, out.with_name(f"{out.stem}.last_good.pt"), setting.ranks):
        setting.watcher.begin("train", f"train {recipe.name}")
        training = journal.chapter(
            "the training", lambda: dataclasses.asdict(setting.train(model, steps, optimization(settings)))
        )
    setting.ranks.require_same(model)
    if not setting.ranks.first:
        return {}
    metric = setting.evaluate(model)
    setting.watcher.measured("test", metric, training["steps"])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_weights(model.state_dict(), out)
    return {
        "model": str(out),
        "data": describe_data(setting),
        "steps": training["steps"],
        "seconds": setting.clock.spent("training"),
        "epoch_losses": training["losses"],
        "metric": metric,
    }


def load_dense(recipe: schema.Recipe, source: Path | None, setting: Setting) -> nn.Module:
    """The recipe's network with the weights in `source`; without one as it is before any training.

    Raises:
        CheckpointError: the weights do not fit.
        DataError: the data do not.
    """
    if source is None:
        model = build_model(recipe.model, recipe.seed)
    else:
        model = trained_model(recipe.model, recipe.seed, source)
    model.to(setting.device)
    require_inputs(model, setting.example, recipe.model)
    return model


def apply(
    recipe: schema.Recipe,
    source: Path,
    out: Path,
    setting: Setting,
    *,
    warned: list[str] | None = None,
    place: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Run all stages on the weights in `source` and leave artefacts, proofs and figures in the folder `out`.

    Args:
        warned: a list that collects warnings while the run goes on; what is in it at the end is in the results.
        place: where a key of the recipe, such as "stages.0.target", was written, for the error text.

    Returns:
        The content of results.json; nothing in another process than the first of several.

    Raises:
        InputError: the weights do not fit, or a stage cannot be run as the recipe has it; nothing is written.
        DivergedError: the loss became NaN; the last good weights are in `out`/checkpoint.
        NothingPrunedError: no entry was chosen to go.
        ProofError: slim differs from masked, or a file from slim; nothing is written.
        Interrupted: by a signal.
    """
    torch.manual_seed(recipe.seed)
    clock, journal = setting.clock, setting.journal
    warned = [] if warned is None else warned
    with clock.phase("load"):
        dense = Shelved(load_dense(recipe, source, setting))
    with clock.phase("selection"):
        rehearsal.check(recipe, dense.copy(), setting, place)
    with clock.phase("load"):
        model = dense.copy()
    pruned = Pruned(dense=dense.copy)
    journal.open(_fingerprint(recipe, source, setting), clock)
    setting.ranks.wait()  # before the first writes, all have read what there is to go on from
    journal.follow("clock", clock)
    journal.follow("warnings", _Warned(warned))
    journal.follow("pruned", pruned)
    journal.follow("shapes", _Shapes(model))
    journal.follow("model", model)
    journal.follow("chance", chance)
    with _keep_last_good(model, out / "checkpoint" / "last_good.safetensors", setting.ranks):
        found = [
            journal.chapter(f"stage {number + 1}", partial(_stage, recipe, number, model, pruned, setting))
            for number in range(len(recipe.stages))
        ]
    setting.ranks.require_same(model)
    if not setting.ranks.first:
        return {}
    setting.watcher.begin("slim", "slim network")
    with clock.phase("slim"):
        small, parity = _slim(model, setting)
        masked = Shelved(model)
    journal.close()
    del model  # from here on, what is in memory is what is looked at
    looks = {name: Look(setting.task, setting.data.count("test")) for name in ("dense", "slim")}
    metrics = {
        "dense": setting.evaluate(dense.copy(), looks["dense"]),
        "masked": found[-1]["after_removal"],
        "slim": setting.evaluate(small, looks["slim"]),
    }
    networks = _networks(dense, masked, small)
    del small
    with whole_folder(out, within=journal.folder) as folder:
        described = {
            name: {**dataclasses.asdict(stats.measure(network(), setting.example.cpu())), "metric": metrics[name]}
            for name, network in networks.items()
        }
        tensors = stats.tensors(networks["masked"](), networks["slim"]())
        (folder / "checkpoint").mkdir()
        write_weights(networks["masked"]().state_dict(), folder / "checkpoint" / "masked.safetensors")
        _export(recipe, networks, folder, setting, described, parity)
        results = {
            "schema": 1,
            "recipe": recipe.model_dump(mode="json"),
            "seed": recipe.seed,
            "versions": _versions(),
            "machine": _machine(setting),
            "data": describe_data(setting),
            "stages": found,
            "models": described,
            "tensors": tensors,
            **compared(**looks),
            "parity": parity,
            "warnings": list(warned),
        }
        (folder / "recipe.yaml").write_text(resolved_yaml(recipe), encoding="utf-8", newline="\n")
        (folder / "MODEL_CARD.md").write_text(model_card(results), encoding="utf-8", newline="\n")
        results["timing"] = clock.split()
        (folder / "results.json").write_text(
            json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8", newline="\n"
        )
    # Hours of training are not to be lost to a page that can be made again.
    with atomic(out / "report.html") as draft:
        draft.write_text(page(results), encoding="utf-8", newline="\n")
    return results


def _stage(recipe: schema.Recipe, number: int, model: nn.Module, pruned: Pruned, setting: Setting) -> dict[str, Any]:
    stage = recipe.stages[number]
    setting.watcher.begin(
        f"stage_{number + 1}", f"stage {number + 1} of {len(recipe.stages)}, {describe_target(stage)}"
    )
    return run_stage(model, stage, number, pruned, setting)


@dataclasses.dataclass(frozen=True)
class _Warned:
    """What was warned of before an interruption; the same was said again since."""

    said: list[str]

    def state_dict(self) -> dict[str, Any]:
        return {"said": self.said}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.said[:] = state["said"]


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """The layers that stages have put into the network."""

    model: nn.Module

    def state_dict(self) -> dict[str, Any]:
        return {"edits": edits_to_json(getattr(self.model, "shape_edits", ()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        apply_edits(self.model, edits_from_json(state["edits"]))


def _machine(setting: Setting) -> dict[str, Any]:
    several = {} if setting.ranks.count == 1 else {"processes": setting.ranks.count}
    return {"cpu": cpu_name(), "threads": torch.get_num_threads(), "device": str(setting.device), **several}


def _fingerprint(recipe: schema.Recipe, source: Path | None, setting: Setting) -> Fingerprint:
    """Everything that determines what a run comes to; which files are written and timed does not."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"export", "benchmark"}),
        "weights": None if source is None else _sha256(source),
        "data": setting.data.sha256,
        "versions": _versions(),
        "threads": torch.get_num_threads(),
        "device": str(setting.device),
        "processes": setting.ranks.count,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _slim(masked: nn.Module, setting: Setting) -> tuple[nn.Module, dict[str, Any]]:
    """Cut the zeros out, and prove the result on random and on real inputs."""
    masked.eval()
    small = slim(masked, setting.example, tolerance=TOLERANCE)
    real, _ = next(iter(setting.data.batches("test", 100, setting.task, setting.device)()))
    difference = prove_same(masked, small, [setting.example, real], TOLERANCE)
    return small, {
        "masked_vs_slim": difference,
        "inputs": len(real) + len(setting.example),
        "tolerance": TOLERANCE,
    }


def _networks(dense: Shelved, masked: Shelved, small: nn.Module) -> Networks:
    small.cpu()
    return {"dense": lambda: dense.copy().cpu().eval(), "masked": lambda: masked.copy().cpu(), "slim": lambda: small}


def _export(
    recipe: schema.Recipe,
    networks: Networks,
    folder: Path,
    setting: Setting,
    described: dict[str, dict[str, Any]],
    parity: dict[str, Any],
) -> None:
    """Write the slim network's files; measure size and latency of all three networks, which are let go of for that."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        homes = {name: folder if name == "slim" else Path(scratch) for name in networks}
        files: dict[str, dict[str, Path]] = {name: {} for name in networks}
        sizes = []
        with setting.clock.phase("export"):
            for name, kind in _written(recipe, networks, homes, setting.example.cpu(), parity):
                files[name][kind] = homes[name] / f"{name}.{kind}"
                # A thread can compress while the interpreter is busy with the next file.
                sizes.append((name, kind, pool.submit(stats.file_bytes, files[name][kind])))
            for entry in described.values():
                entry["bytes"] = {}
            for name, kind, found in sizes:
                described[name]["bytes"] |= _bytes(kind, found.result())
        networks.clear()
        gc.collect()  # what was traced hangs in circles
        if "onnx" in recipe.export:
            with setting.clock.phase("benchmark"):
                _time(recipe.benchmark, {name: paths["onnx"] for name, paths in files.items()}, described)


def _written(
    recipe: schema.Recipe, networks: Networks, homes: Mapping[str, Path], example: Tensor, parity: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Write what the recipe exports, `homes[name]`/name.kind, and yield (name, kind) after each whose size counts.

    A `.pt2` is written of slim alone.
    """
    note, slim = {"recipe": recipe.model_dump_json()}, networks["slim"]()
    program = compress.export.trace(slim, example) if {"onnx", "pt2"} & set(recipe.export) else None
    if "safetensors" in recipe.export:
        for name, network in networks.items():
            compress.export.safetensors(network(), homes[name] / f"{name}.safetensors", metadata=note)
            yield name, "safetensors"
    if "pt2" in recipe.export:
        parity["slim_vs_pt2"] = compress.export.pt2(slim, homes["slim"] / "slim.pt2", example, program=program)
    if "onnx" in recipe.export:
        paths = {name: home / f"{name}.onnx" for name, home in homes.items()}
        parity["slim_vs_onnx"] = compress.export.onnx(slim, paths["slim"], example, metadata=note, program=program)
        del slim, program
        yield "slim", "onnx"
        # Converting takes a second each; the others differ from it in nothing but weights and widths.
        for name in ("dense", "masked"):
            compress.export.with_weights(paths["slim"], networks[name](), paths[name], example)
            yield name, "onnx"


def _time(wanted: schema.Benchmark, files: Mapping[str, Path], described: dict[str, dict[str, Any]]) -> None:
    timings = latency.measure(files, batch_sizes=wanted.batch_sizes, threads=wanted.threads)
    for name, batches in timings.document("dense")["models"].items():
        described[name]["latency_ms"] = batches


def _bytes(kind: str, found: stats.FileBytes) -> dict[str, int]:
    return {kind: found["plain"], f"{kind}_gzip": found["gzip"]}


@contextmanager
def _keep_last_good(model: nn.Module, path: Path, ranks: Ranks) -> Iterator[None]:
    """Where training ends in NaN, write the weights that it went back to."""
    try:
        yield
    except DivergedError as error:
        if not ranks.first:
            raise
        path.parent.mkdir(parents=True, exist_ok=True)
        write_weights(model.state_dict(), path)
        raise DivergedError(f"{error}; they are in {path}") from error


def describe_data(setting: Setting) -> dict[str, Any]:
    """The data's entry of results.json."""
    found = setting.data
    return {
        "name": found.name,
        "sha256": found.sha256,
        "shape": list(found.shape),
        **{part: count for part in get_args(Part) if (count := found.count(part)) is not None},
        **(
            {"mean": found.mean.tolist(), "std": found.std.tolist()}
            if isinstance(found, Dataset | StreamedDataset)
            else {}
        ),
        **({"note": found.note} if found.note else {}),
    }


def cpu_name() -> str:
    """The processor's name, as far as this system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
