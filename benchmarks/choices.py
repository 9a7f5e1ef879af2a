"""Measures what can be deployed after each of several recipes: dense, dense int8, slim, slim int8 and sparse files.

Trains the networks that are not in the folder of --models, applies each recipe as a user would, and writes the choices
of its results to docs/benchmarks/choices.json. Recipes whose figures are there for the same command are not run again:

    python benchmarks/choices.py --data-root DIR --models DIR
    python benchmarks/choices.py --only resnet --again
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "benchmarks" / "choices.json"

HALF_OF_THE_NODES = (
    'stages=[{target: {nodes: ["*"]}, criterion: {kind: taylor_square, samples: 1000}, scope: global, params: 0.45, '
    "removal: {kind: soft, over: 2 epochs}, retrain: {epochs: 5, optimizer: adam, lr: 2e-3, lr_schedule: cosine, "
    "distill: {weight: 0.9, temperature: 4}}}]"
)
WEIGHTS_OF_THE_AUTOENCODER = (
    'stages=[{target: {weights: ["*"]}, criterion: magnitude, scope: global, sparsity: 0.95, '
    "removal: {kind: gradual_soft, over: 3 epochs}, "
    "retrain: {epochs: 6, optimizer: adamw, lr: 3e-3, lr_schedule: cosine, weight_decay: 1e-4}}]"
)
EXPORT = "export=[onnx, safetensors, int8, sparse]"

CASES: dict[str, tuple[str, str, list[str]]] = {
    "classifier": ("MNIST classifier, 45 % of the parameters left", "mnist_classifier", [HALF_OF_THE_NODES]),
    "classifier_weights": ("MNIST classifier, 97 % of the weights pruned", "mnist_classifier", []),
    "autoencoder": (
        "MNIST autoencoder, 16 of 64 latent nodes, a quarter of the multiply-adds",
        "mnist_ae",
        ["quantize={max_drop: 2}"],
    ),
    "latent": ("MNIST autoencoder, 16 of 64 latent nodes", "mnist_latent", []),
    "autoencoder_weights": ("MNIST autoencoder, 95 % of the weights pruned", "mnist_ae", [WEIGHTS_OF_THE_AUTOENCODER]),
    "resnet": ("ResNet-20 for CIFAR-10, half of the multiply-adds", "cifar10_resnet", ["stages.0.multiple_of=8"]),
    "lstm": ("LSTM that reads MNIST by rows, half of the parameters", "mnist_lstm", []),
    "vit": ("ViT for FashionMNIST, half of the heads and hidden nodes", "fashion_mnist_vit", []),
    "bert": ("BERT for sentences, half of the multiply-adds", "benchmarks/bert.yaml", []),
}
"""By key: what was done, in words; the recipe; and its changes beside `export`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--data-root", type=Path, default=os.environ.get("COMPRESS_DATA", "data"))
    parser.add_argument("--models", type=Path, default=Path("runs/models"), help="dense networks, as mnist_ae.pt")
    parser.add_argument("--work", type=Path, default=Path("runs/choices"), help="folder for the results")
    parser.add_argument("--again", action="store_true", help="run those, too, whose figures are there")
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    arguments.models, arguments.work = arguments.models.resolve(), arguments.work.resolve()
    for key in arguments.only:
        title, recipe, changes = CASES[key]
        words = ["apply", recipe, "model.pt", *(word for change in [EXPORT, *changes] for word in ("--set", change))]
        command = shlex.join(["compress", *words])
        found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
        if found.get(key, {}).get("command") == command and not arguments.again:
            print(f"{key}: measured already")
            continue
        words[2] = str(dense(recipe, arguments))
        results = run(*words, "-o", str(arguments.work / key), "--force", "--seed", arguments.seed, *data(arguments))
        found[key] = {"title": title, "command": command, **entry(results)}
        OUT.write_text(
            json.dumps({name: found[name] for name in CASES if name in found}, indent=1) + "\n", encoding="utf-8"
        )
        print(f"{key}: {results['best']['bound']}: {results['best']['choice']}")


def dense(recipe: str, arguments: argparse.Namespace) -> Path:
    """The trained network of a recipe."""
    model: Path = arguments.models / f"{Path(recipe).stem}.pt"
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        run("train", recipe, "-o", str(model), "--seed", arguments.seed, *data(arguments))
    return model


def data(arguments: argparse.Namespace) -> list[str]:
    return ["--data-root", str(arguments.data_root.resolve())]


def entry(results: dict[str, Any]) -> dict[str, Any]:
    """What a table needs of the results."""
    return {
        "threads": results["recipe"]["benchmark"]["threads"],
        "machine": results["machine"],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "versions": results["versions"],
        "best": results["best"],
        "sizes": {
            name: {key: results["models"][name][key] for key in ("params", "macs")} for name in ("dense", "slim")
        },
        "choices": without_quantiles(results["choices"]),
        "seconds": results["timing"]["total"],
    }


def without_quantiles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_quantiles(inner) for key, inner in value.items() if key != "quantiles"}
    return [without_quantiles(inner) for inner in value] if isinstance(value, list) else value


def run(*words: str) -> dict[str, Any]:
    """A command of this package, whose factories may be here and in the examples; its JSON document."""
    paths = [ROOT / "benchmarks", ROOT / "examples", ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-m", "compress.cli", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise SystemExit(f"compress {shlex.join(words)} ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# --- the network and the sentences of examples/bert_classifier.py, all of one length ---


def bert() -> Any:
    from bert_classifier import CONFIG  # type: ignore[import-not-found]
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification(CONFIG)


def sentences() -> tuple[Any, Any]:
    """Loaders of batches with word ids, their mask and labels."""
    import torch
    from bert_classifier import CONFIG, PADDING, batch, samples
    from torch.utils.data import DataLoader

    def whole(chosen: list[Any]) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = batch(chosen)
        left = CONFIG.max_position_embeddings - found["input_ids"].shape[1]
        ids = torch.nn.functional.pad(found["input_ids"], (0, left), value=PADDING)
        return {"input_ids": ids, "attention_mask": (ids != PADDING).long(), "labels": found["labels"]}

    train, test = samples()
    return (
        DataLoader(train, 32, shuffle=True, collate_fn=whole, generator=torch.Generator().manual_seed(0)),
        DataLoader(test, 250, collate_fn=whole),
    )


if __name__ == "__main__":
    main()
