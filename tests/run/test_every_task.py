"""Every task that has a word, from training to the report: pruned by the loss, with distillation."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from compress.task_words import DEFAULT_METRICS, WORDS, Word

PAGES = Path(__file__).parents[2] / "docs"

MODULE = """
import torch
from torch import nn

N, INPUTS, OUTPUTS = 160, 6, {"classify": 3, "multilabel": 4, "regress": 1, "forecast": 5, "language_model": 11,
                              "reconstruct": 6, "anomaly": 6}

def model(word):
    first = nn.Embedding(11, INPUTS) if word == "language_model" else nn.Identity()
    return nn.Sequential(first, nn.Linear(INPUTS, 16), nn.ReLU(), nn.Linear(16, OUTPUTS[word]))

def samples(word):
    torch.manual_seed(0)
    x = torch.randn(N, INPUTS)
    y = x @ torch.randn(INPUTS, OUTPUTS[word]) + 0.1 * torch.randn(N, OUTPUTS[word])
    if word == "language_model":
        tokens = torch.arange(9).repeat(N, 1) + torch.randint(11, (N, 1))
        return tokens[:, :-1] % 11, tokens[:, 1:] % 11
    if word == "anomaly":
        flags = (torch.arange(N) % 8 == 0).float()
        x = torch.where(flags[:, None] > 0, 3 * x, x[:, :2].repeat(1, 3))
        return x, flags
    if word == "reconstruct":
        return x, x
    return x, {"classify": y.argmax(1), "multilabel": (y > 0).long(), "regress": y[:, 0], "forecast": y}[word]

def loaders(word):
    x, y = samples(word)
    def batches(rows):
        pairs = list(zip(x[rows].split(20), y[rows].split(20)))
        return [(a, {"input": a, "anomaly": b}) for a, b in pairs] if word == "anomaly" else pairs
    return batches(slice(100)), batches(slice(100, None))
"""

RECIPE = """\
name: every
model: {factory: "every_task:model", args: {word: WORD}}
data: {factory: "every_task:WORD"}
task: TASK
train: {epochs: 20, optimizer: adamw, lr: 1e-2}
stages:
  - target: {nodes: ["1"]}
    criterion: CRITERION
    sparsity: 0.5
    removal: soft
    retrain: {epochs: 3, optimizer: adamw, lr: 1e-3, distill: {weight: 0.5}}
export: [onnx, safetensors, int8]
"""

SHOWN = {
    "classify": {"by_class", "confusion"},
    "multilabel": {"by_class"},
    "regress": {"values"},
    "forecast": {"values", "series"},
    "anomaly": {"roc"},
}
LINEAR = "{kind: skeletonization, error: linear}"

PICTURES = {"by_class", "confusion", "values", "series", "roc", "text", "images"}


@pytest.fixture
def applied(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    factories = "".join(f"\ndef {word}():\n    return loaders({word!r})\n" for word in WORDS)
    (tmp_path / "every_task.py").write_text(MODULE + factories, encoding="utf-8")

    def apply(word: Word, task: str, criterion: str = "taylor") -> dict[str, Any]:
        text = RECIPE.replace("WORD", word).replace("TASK", task).replace("CRITERION", criterion)
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        run("train", "recipe.yaml", "-o", "model.pt", "--force")
        run("apply", "recipe.yaml", "model.pt", "-o", "out", "--force")
        found: dict[str, Any] = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
        jsonschema.validate(found, json.loads((PAGES / "results.schema.json").read_text(encoding="utf-8")))
        return found

    return apply


@pytest.mark.extended
@pytest.mark.parametrize(
    "word",
    [word if word in ("regress", "anomaly") else pytest.param(word, marks=pytest.mark.extended) for word in WORDS],
)
@pytest.mark.filterwarnings("ignore:.*int8:UserWarning")
def test_a_word_is_enough(applied: Any, word: Word) -> None:
    found = applied(word, word)
    ranked = DEFAULT_METRICS[word][0] if DEFAULT_METRICS[word] else "loss"
    assert found["ranked_by"]["name"] == ranked
    for model in found["models"].values():
        assert list(model["metric"]) == ["loss", *DEFAULT_METRICS[word]]
    # The networks have learnt something, and what is pruned has not become useless.
    floor = {"accuracy": 0.6, "f1": 0.6, "auroc": 0.7}
    if ranked in floor:
        assert found["models"]["dense"]["metric"][ranked] > floor[ranked]
    page = Path("out", "report.html").read_text(encoding="utf-8")
    assert f"test {ranked}" in page
    assert set(found) & PICTURES == SHOWN.get(word, set())
    assert "dense's " + ranked in found["best"]["bound"]


@pytest.mark.parametrize(
    ("word", "task", "criterion"),
    [
        (
            "classify",
            "{name: classify, metrics: [balanced_accuracy, auroc], rank_by: auroc}",
            "{kind: skeletonization, error: linear}",
        ),
        ("multilabel", "{name: multilabel, rank_by: loss}", "{kind: skeletonization, error: linear}"),
        ("regress", "{name: regress, metrics: [mse, pearson]}", "taylor_square"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*int8:UserWarning")
@pytest.mark.extended
def test_settings_beside_the_word(applied: Any, word: Word, task: str, criterion: str) -> None:
    found = applied(word, task, criterion)
    names = {"classify": ["balanced_accuracy", "auroc"], "multilabel": ["f1", "auroc"], "regress": ["mse", "pearson"]}
    assert list(found["models"]["slim"]["metric"]) == ["loss", *names[word]]
    assert found["ranked_by"]["name"] == {"classify": "auroc", "multilabel": "loss", "regress": "mse"}[word]
