"""Measures the figures that the comments of the shipped recipes promise.

Trains and applies each recipe as a user would, and writes the results to docs/benchmarks/recipes.json, where the
figures of other recipes do not change:

    python benchmarks/recipes.py mnist_classifier mnist_decoder --data-root DIR
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "recipes.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="names of shipped recipes")
    parser.add_argument("--data-root", default=os.environ.get("COMPRESS_DATA", "data"))
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for models and results")
    parser.add_argument("--set", action="append", default=[], help="as of compress, for training and applying")
    parser.add_argument("--model", type=Path, help="a trained model, instead of training one")
    parser.add_argument("--label", help="name of the entry; the recipe's name if absent")
    arguments = parser.parse_args()
    for name in arguments.recipes:
        entry = measure(name, arguments)
        found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
        found[arguments.label or name] = entry
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(entry))


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    changes = [word for change in arguments.set for word in ("--set", change)]
    model = arguments.model or arguments.work / f"{name}.pt"
    entry: dict[str, Any] = {"changes": arguments.set}
    if arguments.model is None:
        trained = run("train", name, "-o", str(model), "--data-root", arguments.data_root, "--force", *changes)
        entry["train"] = {key: trained[key] for key in ("steps", "seconds", "metric")}
    out = arguments.work / (arguments.label or name)
    results = run("apply", name, str(model), "-o", str(out), "--data-root", arguments.data_root, "--force", *changes)
    figures = ("measure", "asked", "achieved", "before_removal", "after_removal", "steps", "seconds")
    return entry | {
        "data": {key: results["data"][key] for key in ("name", "train", "test")},
        "threads": results["machine"]["threads"],
        "dense": results["models"]["dense"]["metric"],
        "stages": [{key: stage[key] for key in figures} for stage in results["stages"]],
        "slim": results["models"]["slim"]["metric"],
        **{size: {kind: results["models"][kind][size] for kind in ("dense", "slim")} for size in ("params", "macs")},
        "parity": results["parity"],
        "warnings": results["warnings"],
        "timing": results["timing"],
    }


def run(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "compress.cli", *words, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"compress {' '.join(words)} ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
