"""Compares removals and criteria at the same number of steps: `compress compare` on the shipped recipes.

Trains each recipe's network if it is not in the work folder yet, compares, and leaves results and curves in
docs/benchmarks/rivals; finished cells are kept, so that an interrupted run resumes:

    python benchmarks/rivals.py --data-root DIR
    python benchmarks/rivals.py mnist_removals mnist_criteria --data-root DIR
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "rivals"

GRADUAL_SOFT = "{kind: gradual_soft, cohort: 60 steps, every: 10 steps}"
FADING = "{kind: gradual_soft, over: 0.6 epochs, cohort: 100 steps, every: 20 steps}"
REMOVALS = f"hard,soft,gradual,{GRADUAL_SOFT}"
CRITERIA = "magnitude,scaled_magnitude,lamp,taylor,snip,obd,random"
MORE_REMOVALS = "gradual_soft,{kind: soft, learns: true},sfp,srfp,greg"
CLASSIFIERS = ("--lr", "2e-3,5e-3")
CHANNELS = "{kind: gradual_soft, over: 1.2 epochs, cohort: 60 steps, every: 20 steps}"
DECODERS = ("--removal", f"hard,gradual,{FADING}", "--sparsity", ".9,.95", "--seeds", "5")
LATENT = ("--sparsity", ".75,.953125", "--lr", "1.5e-3", "--seeds", "5")
COMPENSATED = ("--set", "stages.0.criterion=skeletonization", "--set", "stages.0.removal=hard")
PLAIN = ("--set", "stages.0.compensate=false")
"""Hard removal of nodes without least squares."""
SMALL = ("--sparsity", ".5,.75,.9", "--seeds", "5")

# name -> the recipe, and what is compared on it
EXPERIMENTS: Mapping[str, tuple[str, Sequence[str]]] = {
    "mnist_removals": (
        "mnist_classifier",
        ("--removal", REMOVALS, "--sparsity", ".9,.97,.99", *CLASSIFIERS, "--seeds", "5"),
    ),
    "fashion_mnist_removals": (
        "fashion_mnist_classifier",
        ("--criterion", "magnitude", "--removal", REMOVALS, "--sparsity", ".9,.97,.99", *CLASSIFIERS, "--seeds", "5"),
    ),
    "mnist_criteria": (
        "mnist_classifier",
        ("--criterion", CRITERIA, "--sparsity", ".97,.99", *CLASSIFIERS, "--seeds", "3"),
    ),
    "fashion_mnist_criteria": (
        "fashion_mnist_classifier",
        ("--criterion", CRITERIA, "--sparsity", ".97,.99", *CLASSIFIERS, "--seeds", "5"),
    ),
    "mnist_more_removals": (
        "mnist_classifier",
        ("--removal", MORE_REMOVALS, "--sparsity", ".97,.99", *CLASSIFIERS, "--seeds", "3"),
    ),
    "fashion_mnist_more_removals": (
        "fashion_mnist_classifier",
        ("--criterion", "magnitude", "--removal", MORE_REMOVALS, "--sparsity", ".97,.99", *CLASSIFIERS, "--seeds", "3"),
    ),
    "cifar10_removals": (
        "cifar10_classifier",
        ("--removal", f"hard,gradual,{GRADUAL_SOFT}", "--sparsity", ".97", "--lr", "2e-3", "--seeds", "3"),
    ),
    "mnist_latent": (
        "mnist_latent",
        (
            "--criterion",
            "principal_axes,skeletonization",
            "--removal",
            "hard,{kind: soft, over: 1 epoch}",
            *LATENT,
            *PLAIN,
        ),
    ),
    "mnist_latent_compensated": (
        "mnist_latent",
        (*COMPENSATED, *LATENT),
    ),
    "mnist_decoder": ("mnist_decoder", (*DECODERS, "--lr", "3e-3,6e-3")),
    "fashion_mnist_decoder": ("fashion_mnist_decoder", (*DECODERS, "--lr", "3e-3")),
    "cifar10_decoder": ("cifar10_decoder", (*DECODERS, "--lr", "3e-3")),
    "cifar10_resnet": (
        "cifar10_resnet",
        (
            *("--removal", f"hard,{{kind: soft, over: 2 epochs}},{CHANNELS}"),
            *("--lr", "2e-2", "--seeds", "3"),
            *PLAIN,
        ),
    ),
    "breast_cancer_removals": (
        "breast_cancer_mlp",
        (
            "--removal",
            "hard,{kind: soft, over: 3 epochs},{kind: gradual_soft, over: 6 epochs, cohort: 3 epochs}",
            *SMALL,
            *PLAIN,
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(EXPERIMENTS)}; all if absent")
    parser.add_argument("--data-root", default=os.environ.get("COMPRESS_DATA", "data"))
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for models and finished cells")
    parser.add_argument("--workers", default="2", help="processes, of one thread each")
    arguments = parser.parse_args()
    if unknown := set(arguments.experiments) - set(EXPERIMENTS):
        parser.error(f"unknown experiment {unknown.pop()}; the experiments are {', '.join(EXPERIMENTS)}")
    for name in arguments.experiments or EXPERIMENTS:
        recipe, _ = EXPERIMENTS[name]
        model = arguments.work / f"{recipe}.pt"
        if not model.exists():
            compress("train", recipe, "-o", str(model), "--data-root", arguments.data_root)
        folder = arguments.work / "compare" / name
        cache = arguments.work / "compare" / "cells"
        places = ("--data-root", arguments.data_root, "--workers", arguments.workers, "--cache", str(cache))
        compress(*shlex.split(command(name))[1:], *places, "-o", str(folder), model=str(model))
        keep(name, folder)


def command(name: str) -> str:
    """The comparison as a person would type it, with model.pt for the trained network."""
    recipe, options = EXPERIMENTS[name]
    return shlex.join(["compress", "compare", recipe, "model.pt", *options])


def compress(*arguments: str, model: str = "model.pt") -> None:
    words = [model if word == "model.pt" else word for word in arguments]
    subprocess.run([sys.executable, "-c", "from compress.cli import main; main()", *words], check=True)


def keep(name: str, folder: Path) -> None:
    """Keep results and curves, without the settings of every single cell, which follow from the grid."""
    OUT.mkdir(parents=True, exist_ok=True)
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for part in ("tuning", "cells"):
        found[part] = [{key: value for key, value in cell.items() if key != "stage"} for cell in found[part]]
    for entry in found["dense"]:
        del entry["model"]  # a path of the machine where it ran
    (OUT / f"{name}.json").write_text(json.dumps(found, allow_nan=False) + "\n", encoding="utf-8")
    for kind in ("svg", "png"):
        shutil.copyfile(folder / f"curve.{kind}", OUT / f"{name}.{kind}")


if __name__ == "__main__":
    main()
