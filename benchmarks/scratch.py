"""Is pruning better than training the small network? A recipe at several budgets, against its shape from scratch.

Applies the recipe to a trained model with `rivals: {scratch: true}` for every budget and seed, and adds the figures
to docs/benchmarks/scratch.json; those that are there are not computed again:

    python benchmarks/scratch.py cifar10_resnet --model model.pt --macs 0.5 0.25 --data-root DIR
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from recipes import run

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "scratch.json"
SETTINGS = ("stages.0.sparsity=null", "stages.0.scope=null", "rivals.scratch=true", "export=[]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a shipped recipe with one stage")
    parser.add_argument("--model", type=Path, required=True, help="the trained network")
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5, 0.25], help="shares of the multiply-adds left")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data-root", default=os.environ.get("COMPRESS_DATA", "data"))
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for results")
    parser.add_argument("--set", action="append", default=[], help="as of compress")
    arguments = parser.parse_args()
    for macs in arguments.macs:
        for seed in range(arguments.seeds):
            found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
            entry = found.setdefault(arguments.recipe, {"changes": arguments.set, "runs": {}})
            if entry["changes"] != arguments.set:
                raise SystemExit(f"{OUT} has {arguments.recipe} with other changes: {entry['changes']}")
            if len(entry["runs"].setdefault(f"{macs:g}", [])) <= seed:
                entry["runs"][f"{macs:g}"].append(measure(arguments, macs, seed))
                OUT.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")


def measure(arguments: argparse.Namespace, macs: float, seed: int) -> dict[str, Any]:
    changes = [*arguments.set, *SETTINGS, f"stages.0.macs={macs:g}"]
    settings = [word for change in changes for word in ("--set", change)]
    words = ("--seed", str(seed), "--data-root", arguments.data_root, "--force", "-o", str(arguments.work / "scratch"))
    results = run("apply", arguments.recipe, str(arguments.model), *words, *settings)
    kinds = ("dense", "slim")
    return {
        "seed": seed,
        **{size: {kind: results["models"][kind][size] for kind in kinds} for size in ("params", "macs")},
        **{kind: results["models"][kind]["metric"] for kind in kinds},
        "scratch": results["rivals"]["scratch"],
        "retraining": {key: results["stages"][0][key] for key in ("steps", "seconds")},
    }


if __name__ == "__main__":
    main()
