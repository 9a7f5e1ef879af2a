"""Run the paper's cells and collect their results in one document, results.json."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache as memo
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compress import __version__
from compress.errors import InputError
from compress.files.bounded import read_json
from compress.paper import cells as running
from compress.paper import document, figures
from compress.paper.experiments import PaperCell
from compress.recipe import schema
from compress.run.output import whole_folder
from compress.sweep import jobs
from compress.sweep.cell_store import Cells, Result, checksum
from compress.sweep.cluster import carried
from compress.sweep.engines import Workers
from compress.wording import because, did_you_mean, missing

MAX_BYTES = 64 * 2**20
"""The largest results.json; with all experiments it has less than 1 MB."""
FILES = ("paper.md", "paper/results.json", *(f"paper/{name}" for name in figures.FILES))
"""All files that `write_all` may write."""


def write_all(results: dict[str, Any], folder: Path) -> None:
    """Write page, figures and results.json to `folder`, all or none."""
    with whole_folder(folder, FILES, "reproduce") as draft:
        (draft / "paper").mkdir()
        figures.write_all(results, draft / "paper")
        (draft / "paper" / "results.json").write_text(written(results), encoding="utf-8", newline="\n")
        (draft / "paper.md").write_text(document.page(results, "paper"), encoding="utf-8", newline="\n")


def choose(
    cells: Sequence[PaperCell], wanted: Sequence[str] = (), seeds: int | None = None, levels: Sequence[float] = ()
) -> list[PaperCell]:
    """The cells of the experiments `wanted` ("latent", "latent/mnist"; all if empty), and the dense networks they need.

    Raises:
        InputError: an experiment or a level does not exist.
    """
    known = {name for cell in cells for name in (cell.experiment, f"{cell.experiment}/{cell.dataset}")}
    if unknown := [name for name in wanted if name not in known]:
        there = ", ".join(sorted(known))
        raise InputError(f"no experiment is called {unknown[0]!r}; there is {there}{did_you_mean(unknown[0], known)}")
    named = [
        cell for cell in cells if not wanted or {cell.experiment, f"{cell.experiment}/{cell.dataset}"} & set(wanted)
    ]
    if absent := set(levels) - (known_levels := {cell.level for cell in named}):
        raise InputError(f"no cell has the level {min(absent)}; there is {', '.join(map(str, sorted(known_levels)))}")
    return [
        cell
        for cell in named
        if (seeds is None or cell.dense.seed < seeds) and (not levels or cell.level in levels or cell.method == "dense")
    ]


def run(
    cells: Sequence[PaperCell],
    data_root: Path,
    cache: Path,
    workers: Workers,
    on_progress: Callable[[jobs.Progress], None] = lambda progress: None,
) -> dict[str, Result]:
    """Compute the cells that are not in `cache` yet, and return the results of all cells, by key.

    Raises:
        DataError: a data set is not available; nothing has been run.
        SweepError: cells failed.
    """
    # Here, so that two workers do not download the same files.
    for wanted in {cell.dense.data for cell in cells}:
        running.load(wanted, data_root)
    with _kept(cache) as kept:
        return jobs.run(_jobs(cells, data_root, cache), kept, workers, on_progress)


def finished(cells: Sequence[PaperCell], cache: Path) -> dict[str, Result]:
    """The results of the cells that are in `cache`, by key."""
    with _kept(cache) as kept:
        return kept.read((running.key(cell), {}) for cell in cells)


def _kept(cache: Path) -> Cells:
    return Cells(cache / "cells")


def collect(cells: Sequence[PaperCell], results: Mapping[str, Result]) -> dict[str, Any]:
    """results.json: every cell with a result, with its seed and settings; `planned` is the number of all cells."""
    keys = [running.key(cell) for cell in cells]
    networks: dict[str, Any] = {}
    stages: list[Any] = []
    found = []
    for cell, key in zip(cells, keys, strict=True):
        if key not in results:
            continue
        network = running.key(cell.dense)
        networks[network] = cell.dense.determinants()
        stage = None if cell.stage is None else cell.determinants()["stage"]
        if stage is not None and stage not in stages:
            stages.append(stage)
        found.append(
            {
                **{name: getattr(cell, name) for name in ("experiment", "dataset", "method", "level", "final")},
                "seed": cell.dense.seed,
                "key": key,
                "network": network,
                "stage": None if stage is None else stages.index(stage),
                "result": results[key],
            }
        )
    processors = sorted({cell["result"].get("cpu", _NOT_NOTED) for cell in found})
    document = {
        "schema": 1,
        "versions": {"softprune": __version__, **{name: version(name) for name in ("torch", "torchvision")}}
        | {"python": platform.python_version()},
        "machine": {"cpu": " and ".join(processors), "threads": 1},
        "planned": len(cells),
        "networks": networks,
        "stages": stages,
        "cells": found,
    }
    return {"checksum": checksum(document), **document}


_NOT_NOTED = "a processor that was not noted"  # by earlier versions


def restore(path: Path, cells: Sequence[PaperCell], cache: Path) -> int:
    """Copy the finished cells of the results.json `path` to `cache`, if they are still valid.

    Returns the number of valid ones: 0 if another version of softprune has computed them. Raises InputError if the
    file is not such a document.
    """
    try:
        document = read_json(path, MAX_BYTES)
        if document.pop("checksum") != checksum(document):
            raise ValueError("it was changed after it was written: its checksum differs")
        # Earlier files name the processor only once.
        found = {cell["key"]: {"cpu": document["machine"]["cpu"], **cell["result"]} for cell in document["cells"]}
        by = document["versions"]["softprune"]
    except FileNotFoundError:
        raise InputError(missing(path, "name the results.json of an earlier `compress reproduce`")) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {because(error)}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a results.json of `compress reproduce`: {error}") from None
    wanted = {running.key(cell) for cell in cells} & set(found) if by == __version__ else set()
    for key in wanted:
        _kept(cache).write(key, {}, found[key])
    return len(wanted)


def written(results: dict[str, Any]) -> str:
    """results.json as text: a line for every cell, network and stage, for readable diffs."""

    def lines(values: Iterable[str]) -> str:
        return ",\n  ".join(values)

    def compact(value: Any) -> str:
        return json.dumps(value, allow_nan=False)

    head = {name: value for name, value in results.items() if name not in ("networks", "stages", "cells")}
    networks = lines(f"{compact(name)}: {compact(value)}" for name, value in results["networks"].items())
    return (
        compact(head)[:-1]
        + f',\n "networks": {{\n  {networks}}},\n "stages": [\n  {lines(map(compact, results["stages"]))}],\n'
        + f' "cells": [\n  {lines(map(compact, results["cells"]))}]}}\n'
    )


def _jobs(cells: Sequence[PaperCell], data_root: Path, cache: Path) -> list[jobs.Job]:
    trained = {running.key(cell.dense): running.key(cell) for cell in cells if cell.method == "dense"}
    networks, data = cache / "networks", memo(lambda wanted: carried.of_data(wanted, data_root))
    return [
        jobs.Job(
            running.key(cell),
            cell.title,
            partial(running.run, cell, data_root, networks),
            () if cell.stage is None else (trained[running.key(cell.dense)],),
            cell.cost,
            carried=partial(_carried, cell, networks, data),
        )
        for cell in cells
    ]


def _carried(cell: PaperCell, networks: Path, data: Callable[[schema.Data], carried.Carried]) -> carried.Carried:
    """The data set, and the dense network if an earlier cell has trained it."""
    dense = networks / f"{running.key(cell.dense)}.safetensors"
    places = (carried.of_file(dense),) if dense.is_file() else ()
    return data(cell.dense.data) + carried.Carried(places, written=str(networks))
