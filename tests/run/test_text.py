"""Recipes with text, from the files to the results; what is wrong with a text ends in one line and exit code 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import compress
from compress.models import transformer_language_model

STAGE = """
stages:
  - target: {nodes: "*"}
    criterion: norms
    sparsity: 0.5
    removal: {kind: soft, over: 0.5 epochs}
    retrain: {epochs: 1, optimizer: adam, lr: 1e-3}
export: [onnx, safetensors]
benchmark: {batch_sizes: [1]}
"""

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.embedding, self.hidden, self.out = nn.Embedding(257, 8), nn.Linear(8, 16), nn.Linear(16, classes)

    def forward(self, tokens):
        return self.out(self.hidden(self.embedding(tokens).mean(1)).relu())


def build(classes=2):
    return Net(classes)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write_model(path: Path, recipe: str) -> Path:
    path.write_text(recipe + STAGE, encoding="utf-8")
    return path


@pytest.mark.extended
def test_a_language_model_from_plain_text(here: Path, run: Callable[..., Any]) -> None:
    (here / "book.txt").write_text("the cat sat on the mat. " * 60, encoding="utf-8")
    recipe = write_model(
        here / "lm.yaml",
        "name: lm\nmodel: {name: transformer_language_model, vocabulary: 20, length: 16, dim: 8, depth: 1, heads: 2}\n"
        "data: {text: book.txt, tokenizer: chars, length: 16, batch_size: 8}\n"
        "dynamic: {tokens: {1: length}}\ntask: language_model\ntrain: {epochs: 1, optimizer: adam, lr: 1e-2}\n",
    )
    run("train", recipe, "-o", "model.pt")
    run("apply", recipe, "model.pt", "-o", "out")
    results = json.loads((here / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["data"]["name"] == "book.txt"
    assert results["models"]["slim"]["params"] < results["models"]["dense"]["params"]
    small = compress.load(here / "out" / "slim.safetensors", model=lambda: transformer_language_model(20, 16, 8, 1, 2))
    session = onnxruntime.InferenceSession(here / "out" / "slim.onnx")
    for length in (1, 3, 16):  # any number of tokens
        tokens = torch.randint(0, 14, (2, length))
        (theirs,) = session.run(None, {session.get_inputs()[0].name: tokens.numpy()})
        assert np.allclose(theirs, small.eval()(tokens).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("tokenizer", ["bytes", pytest.param("words/tokenizer.json", marks=pytest.mark.extended)])
def test_a_classifier_that_takes_ids_by_position(here: Path, run: Callable[..., Any], tokenizer: str) -> None:
    (here / "my_text_net.py").write_text(NET, encoding="utf-8")
    rows = [{"text": ("good", "bad")[n % 2] + f" {n}", "label": ("pos", "neg")[n % 2]} for n in range(60)]
    (here / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "good", "bad"])}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    content = json.dumps({"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}}, indent=1)
    (here / "words").mkdir()
    (here / "words" / "tokenizer.json").write_bytes(content.replace("\n", "\r\n").encode())
    recipe = write_model(
        here / "c.yaml",
        'name: c\nmodel: {factory: "my_text_net:build"}\n'
        f"data: {{text: a.jsonl, tokenizer: {tokenizer}, length: 12, inputs: [input], batch_size: 10}}\n"
        "task: classify\ntrain: {epochs: 8, optimizer: adam, lr: 2e-2}\n",
    )
    trained = json.loads(run("train", recipe, "-o", "model.pt", "--json").stdout)
    assert trained["metric"]["accuracy"] > 0.9
    run("apply", recipe, "model.pt", "-o", "out")
    assert (here / "out" / "slim.onnx").exists()
    copy = here / "out" / "tokenizer.json"
    assert copy.exists() == (tokenizer != "bytes")
    if copy.exists():  # whose hash the files name: every byte is the same
        assert copy.read_bytes() == (here / tokenizer).read_bytes()


WRONG = {
    "no such file": ({"text": "nowhere.jsonl"}, "nowhere.jsonl does not exist"),
    "another kind": ({"text": "a.doc"}, "ends in .jsonl, .csv or .txt"),
    "a line": ({"text": "broken.jsonl"}, "broken.jsonl:2: not JSON"),
    "a key": ({"text": "a.jsonl", "text_column": "body"}, "a.jsonl:1: no key body"),
    "no label": ({"text": "a.jsonl", "target": "kind"}, "a.jsonl:1: no key kind"),
    "empty": ({"text": "empty.jsonl"}, "the train part has no text"),
    "encoding": ({"text": "latin.jsonl"}, "latin.jsonl:1: byte 11 (0xfc) is not UTF-8"),
    "tokenizer": ({"text": "a.jsonl", "tokenizer": "broken.jsonl"}, "is not a readable tokenizer.json"),
    "a word for it": ({"text": "a.jsonl", "tokenizer": "char"}, "char does not exist"),
    "too short": ({"text": "a.txt", "length": 5000}, "give more text, or a smaller length"),
    "task of a stream": ({"text": "a.txt", "length": 4}, "a.txt has texts without labels; use task: language_model"),
    "inputs": ({"text": "a.jsonl", "inputs": ["input", "attention_mask"]}, "input is passed by position, and alone"),
    "pair": ({"text": "a.jsonl", "text_pair": "other"}, "a pair of texts needs a tokenizer.json"),
    "more than there are": ({"text": "a.jsonl", "train": 100}, "asks for the first 100 of"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_text(
    what: str, here: Path, run: Callable[..., Any], unchanged: Callable[[Path], Any]
) -> None:
    pytest.importorskip("tokenizers")
    change, message = WRONG[what]
    (here / "my_text_net.py").write_text(NET, encoding="utf-8")
    good = [json.dumps({"text": f"text {n}", "label": n % 2}) for n in range(20)]
    files = {"a.jsonl": "\n".join(good), "broken.jsonl": f"{good[0]}\n{{", "empty.jsonl": "", "a.txt": "abc " * 10}
    for name, content in files.items():
        (here / name).write_text(content, encoding="utf-8")
    (here / "latin.jsonl").write_bytes('{"text": "fünf"}'.encode("latin-1"))
    data = json.dumps({"tokenizer": "bytes", "length": 8, **change})
    recipe = write_model(
        here / "c.yaml",
        f'name: c\nmodel: {{factory: "my_text_net:build"}}\ndata: {data}\ntask: classify\n'
        "train: {epochs: 1, optimizer: adam, lr: 1e-3}\n",
    )
    with unchanged(here):
        result = run("train", recipe, "-o", "model.pt", code=2)
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("model", "data", "task", "message"),
    [
        ("gru_language_model, vocabulary: 50", "python_topics", "language_model", "has 105 tokens and the network a"),
        (
            "transformer_language_model, length: 64, vocabulary: 300",
            "python_topics",
            "language_model",
            "network sees 64",
        ),
        ("gru_language_model, vocabulary: 300", "mnist_sample", "language_model", "takes token ids, and mnist_sample"),
        ("gru_language_model", "python_topics", "classify", "can only language_model"),
        ("transformer_language_model, dim: 30", "python_topics", "language_model", "4 heads do not divide"),
    ],
)
def test_a_network_that_does_not_fit_the_text(
    model: str, data: str, task: str, message: str, here: Path, run: Callable[..., Any]
) -> None:
    recipe = write_model(
        here / "c.yaml",
        f"name: c\nmodel: {{name: {model}}}\ndata: {{name: {data}}}\ntask: {task}\n"
        "train: {epochs: 1, optimizer: adam, lr: 1e-3}\n",
    )
    result = run("train", recipe, "-o", "model.pt", code=2)
    assert message in " ".join(result.stderr.split())
