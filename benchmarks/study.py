"""What studies of small networks share: a setting on the CPU, figures, and the file of their finished cells."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from compress.data.dataset import TrainingData
from compress.recipe.schema import Recipe
from compress.run.building import build_task
from compress.run.clock import Clock
from compress.run.setting import Setting, unwatched

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"


@dataclass(frozen=True)
class Cells:
    """The cells of all networks, in docs/benchmarks/NAME.json; several processes may add to it."""

    name: str

    @property
    def path(self) -> Path:
        return BENCHMARKS / f"{self.name}.json"

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        return found

    def note(self, network: str, part: str, entries: Mapping[str, Any]) -> None:
        with FileLock(f"{self.path}.lock"):
            found = self.read()
            found.setdefault(network, {}).setdefault(part, {}).update(entries)
            self.path.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")


def on_cpu(recipe: Recipe, data: TrainingData, seed: int) -> Setting:
    task = build_task(recipe.task)
    return Setting(data, task, recipe.data.batch_size, torch.device("cpu"), seed, unwatched, Clock())


def metric(found: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(found[key]) for key in ("loss", "accuracy") if key in found}
