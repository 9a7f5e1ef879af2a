"""Compares principal axes of a residual stream with its nodes, at equal width, in a small language model.

    python benchmarks/stream_axes.py
    python benchmarks/stream_axes.py --quick

A Llama of some 170,000 parameters learns the characters of Python's own documentation (`pydoc_data.topics`); the last
tenth of the text is held out. The stream is cut to 75, 50 and 25 % of its width: by nodes (`norms`, `taylor_square`,
the latter also with readers that make up for the pruned nodes) and by axes. The perplexity is that of the slim network,
per character, without retraining and after the same short one for all.
"""

import copy
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from pydoc_data.topics import topics
from statistics import mean, stdev
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import compress
from compress.run.provenance import cpu_name

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "stream_axes.json"
WIDTH, LAYERS, HEADS, HIDDEN, LENGTH, BATCH = 64, 3, 4, 192, 128, 16
SHARES = (0.75, 0.5, 0.25)
SCORED = 256  # pieces of text

WAYS: Mapping[str, Mapping[str, Any]] = {
    "norms": {"criterion": "norms"},
    "taylor_square": {"criterion": compress.Taylor(square=True, samples=SCORED)},
    "taylor_square, compensated": {"criterion": compress.Taylor(square=True, samples=SCORED), "compensate": True},
    "principal_axes": {"criterion": compress.PrincipalAxes(samples=SCORED)},
}


def main(
    seeds: Annotated[int, typer.Option(help="Networks that are trained, each from another start.")] = 3,
    steps: Annotated[int, typer.Option(help="Of training.")] = 1000,
    retraining: Annotated[int, typer.Option(help="Steps after the cut.")] = 60,
    threads: Annotated[int, typer.Option(help="Of torch.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="One seed and a tenth of the steps.")] = False,
    report: Annotated[Path, typer.Option("--json", help="The file for the figures.")] = REPORT,
) -> None:
    """Train, cut and retrain for each seed; print a table and write it as JSON."""
    torch.set_num_threads(threads)
    seeds, steps, retraining = (1, steps // 10, retraining // 10) if quick else (seeds, steps, retraining)
    start = time.monotonic()
    text = Text()
    runs = [measured(seed, text, steps, retraining) for seed in range(seeds)]
    machine = {"cpu": cpu_name(), "threads": threads, "cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1)}
    versions = {name: version(name) for name in ("softprune", "torch", "transformers")}
    ways = {way: figures_of([run["ways"][way] for run in runs]) for way in WAYS}
    dense = figures([run["dense"] for run in runs])
    document = {
        "machine": machine,
        "versions": {**versions, "python": platform.python_version()},
        "text": {"characters": len(text.train) + len(text.test), "sha256": text.sha256},
        "network": {"width": WIDTH, "layers": LAYERS, "params": runs[0]["params"]},
        "seeds": seeds,
        "steps": steps,
        "retraining": retraining,
        "seconds": round(time.monotonic() - start),
        "dense": dense,
        "ways": ways,
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    print(f"perplexity per character, at once / retrained; dense {dense['mean']:.2f}")
    for way, found in ways.items():
        cells = (" / ".join(f"{each[when]['mean']:6.2f}" for when in WHEN) for each in found.values())
        print(f"{way:<28}" + "   ".join(cells))


WHEN = ("at once", "retrained")


def figures(values: list[float]) -> dict[str, float]:
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else 0.0}


def figures_of(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """By share and moment, over the seeds."""
    return {share: {when: figures([run[share][when] for run in runs]) for when in WHEN} for share in runs[0]}


class Text:
    """Characters as numbers; the last tenth is held out."""

    def __init__(self) -> None:
        whole = "\n".join(topics[name] for name in sorted(topics))
        self.sha256 = hashlib.sha256(whole.encode()).hexdigest()
        letters = {letter: number for number, letter in enumerate(sorted(set(whole)))}
        self.letters = len(letters)
        ids = torch.tensor([letters[letter] for letter in whole])
        self.train, self.test = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]

    def batches(self, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """Pieces of the training text from random places."""
        chance = torch.Generator().manual_seed(seed)
        for _ in range(count):
            starts = torch.randint(len(self.train) - LENGTH, (BATCH,), generator=chance)
            yield self._batch(torch.stack([self.train[start : start + LENGTH] for start in starts]))

    @property
    def held_out(self) -> list[dict[str, Tensor]]:
        pieces = self.test[: len(self.test) // LENGTH * LENGTH].view(-1, LENGTH)
        return [self._batch(part) for part in torch.split(pieces, BATCH)]

    def _batch(self, ids: Tensor) -> dict[str, Tensor]:
        return {"input_ids": ids, "labels": ids}


def measured(seed: int, text: Text, steps: int, retraining: int) -> dict[str, Any]:
    """The perplexities of one seed: dense, and of each way and share at once and retrained."""
    torch.manual_seed(seed)
    dense = network(text.letters)
    train(dense, text.batches(steps, seed), steps, 3e-3)
    found: dict[str, Any] = {"params": sum(one.numel() for one in dense.parameters()), "dense": perplexity(dense, text)}
    found["ways"] = {
        way: {f"{share:g}": cut(dense, words, share, text, seed, retraining) for share in SHARES}
        for way, words in WAYS.items()
    }
    return found


def network(letters: int) -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=letters,
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=False,
            use_cache=False,
        )
    )


def cut(
    dense: nn.Module, words: Mapping[str, Any], share: float, text: Text, seed: int, retraining: int
) -> dict[str, float]:
    """The perplexity with this share of the stream's width."""
    model = copy.deepcopy(dense).eval()
    example = {"input_ids": text.held_out[0]["input_ids"][:2]}
    stream = compress.nodes("model.embed_tokens")
    scored = list(text.batches(SCORED // BATCH, seed))
    compress.Pruner(model, stream, sparsity=1 - share, example=example, batches=scored, **words).finalize()
    slim = compress.slim(model, example)
    found = {"at once": perplexity(slim, text)}
    train(slim, text.batches(retraining, seed + 1000), retraining, 1e-3)
    return {**found, "retrained": perplexity(slim, text)}


def train(model: nn.Module, batches: Iterator[dict[str, Tensor]], steps: int, lr: float) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for batch in batches:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


@torch.no_grad()
def perplexity(model: nn.Module, text: Text) -> float:
    """Per character, of the held-out text."""
    losses = [(len(batch["input_ids"]), float(model(**batch).loss)) for batch in text.held_out]
    total = sum(count * loss for count, loss in losses) / sum(count for count, _ in losses)
    return float(torch.tensor(total).exp())


if __name__ == "__main__":
    typer.run(main)
