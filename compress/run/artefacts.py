"""The results folder of a run: slim's files, sizes, times and figures of dense, masked and slim, and the card."""

import gc
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor, nn
from torch.export import ExportedProgram

import compress.export
from compress.export import reading_back
from compress.export.onnx_file import Conversion, converted, reweighted
from compress.files.spill import Shelved
from compress.graph import stats
from compress.recipe import schema
from compress.recipe.loading import resolved_yaml
from compress.report.card import model_card
from compress.report.choices import refusals
from compress.report.constant import WAY_OUT, no_better
from compress.results import (
    CONTRACT,
    ZIPPED,
    Choices,
    Contract,
    FileSizes,
    Format,
    ModelName,
    ModelResult,
    Models,
    OptionalOutcome,
    Outcome,
    Parity,
    Pictures,
    Quality,
    Results,
    Warned,
    contract_text,
)
from compress.run.building import fresh_network
from compress.run.choices import SLIM_INT8, SLIM_SPARSE, ChoosingRun
from compress.run.contract import contract_of
from compress.run.entries import recipe_values
from compress.run.provenance import describe_data, machine, versions
from compress.run.setting import Setting
from compress.run.shareable import shareable_recipe, without_folders
from compress.tasks import ranking
from compress.tasks.sampling import Samples

TOKENIZER = "tokenizer.json"
"""Of texts that are tokenized by such a file: a copy of it."""

FILES = (
    "results.json",
    "recipe.yaml",
    "MODEL_CARD.md",
    "checkpoint/masked.safetensors",
    "slim.safetensors",
    "slim.onnx",
    "slim.pt2",
    SLIM_INT8,
    SLIM_SPARSE,
    TOKENIZER,
)
"""All files that `write_artefacts` may write."""

Networks = dict[ModelName, Callable[[], nn.Module]]
"""The three networks that every result compares, "dense", "masked" and "slim", on the CPU. Each call may read its
network again, so that only the networks in use are in memory."""


def three_networks(dense: Shelved, masked: Shelved, slim: Shelved) -> Networks:
    return {
        "dense": lambda: dense.copy().cpu().eval(),
        "masked": lambda: masked.copy().cpu(),
        "slim": lambda: slim.copy().cpu(),
    }


def write_artefacts(
    recipe: schema.Recipe,
    source: Path,
    networks: Networks,
    folder: Path,
    setting: Setting,
    figures: Mapping[ModelName, Quality],
    samples: Samples,
    outcome: Outcome,
    pictures: Pictures,
) -> Results:
    """Write everything but the page into `folder`, and release the networks.

    Args:
        source: the file of the dense network's weights, or the program that it is.
        figures: of each network, on the test samples.
        samples: that have watched the evaluation of the dense network.
        outcome: the outcome of the run; its "parity" is extended.

    Returns:
        The content of results.json.

    Raises:
        ProofError: a file does not compute the same as the slim network.
    """
    described = {
        name: _measured(network(), setting.example.mapped(Tensor.cpu), figures[name])
        for name, network in networks.items()
    }
    tensors = stats.tensors(networks["masked"](), networks["slim"]())
    (folder / "checkpoint").mkdir()
    compress.export.safetensors(networks["masked"](), folder / "checkpoint" / "masked.safetensors")
    shown = shareable_recipe(recipe)
    choices, contract = _export(recipe, shown, source, networks, folder, setting, described, samples, outcome["parity"])
    ranked = ranking(setting.task)
    results: Results = {
        "schema": 1,
        "recipe": recipe_values(shown),
        "seed": recipe.seed,
        "versions": versions(),
        "machine": machine(setting),
        "data": describe_data(setting),
        "contract": contract,
        "models": described,
        "ranked_by": {"name": ranked.name, "better": ranked.better},
        **choices,
        "tensors": tensors,
        "stages": outcome["stages"],
        **pictures,
        "evaluated": outcome["evaluated"],
        "parity": outcome["parity"],
        "warnings": [*outcome["warnings"], *map(_refused, refusals(choices["choices"]))],
        **_optional(outcome),
        "timing": setting.clock.split(),
    }
    if (text := no_better(results)) is not None:
        results["warnings"].insert(0, {"kind": "constant_output", "text": text, "way_out": WAY_OUT})
    results = without_folders(results, [folder])
    if (tokenizer := getattr(setting.data.preparation, "tokenizer_json", None)) is not None:
        _text(folder / TOKENIZER, tokenizer)
    _text(folder / "recipe.yaml", resolved_yaml(shown))
    _text(folder / "MODEL_CARD.md", model_card(results))
    _text(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    return results


def _refused(text: str) -> Warned:
    return {"kind": "refused", "text": text}


def _optional(outcome: Outcome) -> OptionalOutcome:
    found: OptionalOutcome = {}
    if "latents" in outcome:
        found["latents"] = outcome["latents"]
    if "constant" in outcome:
        found["constant"] = outcome["constant"]
    if "rivals" in outcome:
        found["rivals"] = outcome["rivals"]
    if "weights" in outcome:
        found["weights"] = outcome["weights"]
    return found


def _measured(network: nn.Module, example: object, figures: Quality) -> ModelResult:
    """The network's entry; its files are measured when they are written."""
    size = stats.measure(network, example)
    found: ModelResult = {
        "params": size.params,
        "nonzero": size.nonzero,
        "macs": size.macs,
        "metric": figures["metric"],
        "bytes": {},
    }
    if "error" in figures:
        found["error"] = figures["error"]
    if "change" in figures:
        found["change"] = figures["change"]
    return found


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _export(
    recipe: schema.Recipe,
    shown: schema.Recipe,
    source: Path,
    networks: Networks,
    folder: Path,
    setting: Setting,
    described: Models,
    samples: Samples,
    parity: Parity,
) -> tuple[Choices, Contract]:
    """Write the slim network's files; measure all three networks, which are released for that, and the choices.

    Args:
        shown: the recipe as the files have it.
    """
    example, clock = setting.example.mapped(Tensor.cpu), setting.clock
    suffixes = {f".{kind}" for kind in recipe.files}
    with (
        tempfile.TemporaryDirectory() as scratch,
        ThreadPoolExecutor() as pool,
        reading_back.waiting(suffixes) as early,
    ):
        homes = {name: folder if name == "slim" else Path(scratch) for name in networks}
        files: dict[ModelName, dict[Format, Path]] = {name: {} for name in networks}
        sizes = []
        with clock.phase("export"):
            traced, contract = _traced(recipe, networks["slim"](), example, setting)
            note = {"recipe": shown.model_dump_json(), CONTRACT: contract_text(contract)}
            writing = _written(recipe, networks, homes, example, parity, note, traced)
            del traced  # it is large
            for name, kind in writing:
                files[name][kind] = homes[name] / f"{name}.{kind}"
                # A thread can compress while the interpreter is busy with the next file.
                sizes.append((name, kind, pool.submit(stats.file_bytes, files[name][kind])))
            parity["fresh_process"] = _read_back(recipe, source, networks, folder, example, early)
            for name, kind, found in sizes:
                described[name]["bytes"] |= _bytes(kind, found.result())
        compared: dict[ModelName, nn.Module] = {"dense": networks["dense"](), "slim": networks["slim"]()}
        networks.clear()
        fresh = fresh_network(recipe, source)
        choosing = ChoosingRun(recipe, compared, files, described, samples, folder, Path(scratch), setting, fresh)
        if "int8" in recipe.files:
            with clock.phase("quantize"):
                choosing.quantize()
        if "sparse" in recipe.files:
            with clock.phase("sparse"):
                choosing.sparsify()
        with clock.phase("memory"):
            choosing.weigh()
        compared.clear()
        gc.collect()  # traced networks contain reference cycles
        with clock.phase("benchmark"):
            choosing.time()
        return choosing.entries(), contract


Traced = tuple[ExportedProgram | None, Conversion | None]
"""The slim network as a program and as an ONNX graph, where there is a file of either."""


def _traced(recipe: schema.Recipe, slim: nn.Module, example: object, setting: Setting) -> tuple[Traced, Contract]:
    """Trace the slim network, and describe the files made from it."""
    files, dynamic, data = set(recipe.files), recipe.dynamic, setting.data
    program = compress.export.trace(slim, example, dynamic=dynamic) if {"onnx", "pt2"} & files else None
    graph = None
    if "onnx" in files:
        graph = converted(slim, example, dynamic=dynamic, opset=recipe.opset, program=program)
    contract = contract_of(
        slim,
        example,
        dynamic,
        preparation=None if data.preparation is None else data.preparation.described(),
        classes=data.class_names,
        opset=None if graph is None else graph.opset,
    )
    return (program, graph), without_folders(contract)


def _written(
    recipe: schema.Recipe,
    networks: Networks,
    homes: Mapping[ModelName, Path],
    example: object,
    parity: Parity,
    note: Mapping[str, str],
    traced: Traced,
) -> Iterator[tuple[ModelName, Format]]:
    """Write the exports of the recipe, `homes[name]`/name.kind, and yield (name, kind) after each that is measured.

    Only the slim network gets a `.pt2`.

    Args:
        note: the metadata of the files.
    """
    (program, graph), dynamic = traced, recipe.dynamic
    del traced
    slim = networks["slim"]() if graph is None else graph.model
    if "safetensors" in recipe.files:
        for name, network in networks.items():
            compress.export.safetensors(network(), homes[name] / f"{name}.safetensors", metadata=note)
            yield name, "safetensors"
    if "sparse" in recipe.files:
        compress.export.sparse(slim, homes["slim"] / SLIM_SPARSE, metadata=note)
    if "pt2" in recipe.files:
        path, own = homes["slim"] / "slim.pt2", {CONTRACT: note[CONTRACT]}
        parity["slim_vs_pt2"] = compress.export.pt2(slim, path, example, dynamic=dynamic, metadata=own, program=program)
    if graph is not None:
        paths = {name: home / f"{name}.onnx" for name, home in homes.items()}
        parity["slim_vs_onnx"] = graph.write(paths["slim"], note)
        bare = graph.graph
        del slim, program, graph
        gc.collect()  # a program contains reference cycles, and has the slim network's weights
        yield "slim", "onnx"
        # Each conversion takes a second; the others differ from slim only in weights, widths, and layers that principal
        # axes have taken apart: those the graph gets back for the dense network, which is therefore the last.
        others: tuple[ModelName, ...] = ("masked", "dense")
        for name in others:
            reweighted(bare, networks[name](), paths[name], example, dynamic=dynamic)
            yield name, "onnx"


def _read_back(
    recipe: schema.Recipe,
    source: Path,
    networks: Networks,
    folder: Path,
    example: object,
    early: reading_back.Waiting | None,
) -> dict[str, float]:
    """Compare what the files of `folder` compute in fresh processes with their networks."""
    names = {"sparse": SLIM_SPARSE}
    # int8 is compared with itself elsewhere, when it is made: it is not equal to its network.
    exact = [folder / names.get(kind, f"slim.{kind}") for kind in recipe.files if kind != "int8"]
    slim = networks["slim"]()
    written = dict.fromkeys(exact, slim)
    masked = {folder / "checkpoint" / "masked.safetensors": networks["masked"]()}
    files, built = {**written, **masked}, fresh_network(recipe, source)
    return reading_back.read_back(files, example, early=early, network=built, dynamic=recipe.dynamic)


def _bytes(kind: Format, found: stats.FileBytes) -> FileSizes:
    return {kind: found["plain"], ZIPPED[kind]: found["gzip"]}
