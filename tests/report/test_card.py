import re
from typing import Any

import pytest

from compress.report.card import model_card


def results(**changed: Any) -> dict[str, Any]:
    def figures(params: int, loss: float) -> dict[str, Any]:
        return {
            "params": params,
            "nonzero": params - 5,
            "macs": 2 * params,
            "bytes": {"onnx": 4 * params, "onnx_gzip": 3 * params},
            "metric": {"loss": loss},
            "latency_ms": {"1": {"p50": 0.07, "runs": 900, "ratio": 1.0}, "32": {"p50": 0.8, "runs": 40, "ratio": 1.0}},
        }

    return {
        "recipe": {
            "name": "mnist_ae",
            "task": "reconstruct",
            "model": {"name": "autoencoder"},
            "export": ["onnx", "safetensors"],
            "benchmark": {"threads": 1},
        },
        "data": {"name": "mnist", "train": 50000, "test": 10000},
        "machine": {"cpu": "Some CPU", "threads": 2},
        "stages": [
            {
                "kind": "nodes",
                "target": "latent",
                "criterion": {"kind": "skeletonization"},
                "removal": {"kind": "soft"},
                "measure": "sparsity",
                "asked": 0.75,
                "achieved": 0.75,
                "of": 64,
                "pruned": 48,
                "before_removal": {"loss": 0.0141},
                "after_removal": {"loss": 0.0143},
                "steps": 1955,
            }
        ],
        "models": {"dense": figures(1000, 0.0054), "masked": figures(1000, 0.0143), "slim": figures(800, 0.0143)},
        "parity": {"masked_vs_slim": 1e-8, "slim_vs_onnx": 6e-8, "tolerance": 1e-5},
        **changed,
    }


def test_says_what_how_and_how_well() -> None:
    card = model_card(results())
    for text in (
        "64 latent nodes before, 16 now; 1,000 parameters before, 800 now",
        "- Nodes of latent: 64 dense, 16 slim.",
        "mnist (50,000 training and 10,000 test samples)",
        "nodes of latent: 75 % removed (75 % asked), chosen by skeletonization, soft removal, 1,955 training steps",
        "; loss 0.0141 before removal; loss 0.0143 after removal",
        "Parameters: 1,000 dense, 800 slim, 795 of them nonzero.",
        "|  | KB | ms, batch 1 | ms, batch 32 | test loss (mean squared error per value) |",
        "| dense | 4.0 | 0.07 | 0.8 | 0.0054 |",
        "| slim | 3.2 | 0.07 | 0.8 | 0.0143 |",
        "slim - onnxruntime 6.0e-08",
        "onnxruntime, on Some CPU, 1 thread;",
        'InferenceSession("slim.onnx")',
        'compress.load("slim.safetensors", model=build)',
    ):
        assert text in card
    assert "slim.pt2" not in card  # it was not exported
    assert card == model_card(results())


def test_every_choice_is_there_and_int8_is_not_called_equal(every_choice: dict[str, Any]) -> None:
    card = model_card(every_choice)  # type: ignore[arg-type]
    for text in (
        "| dense int8 | 1.0 | 0.4 | 0.8 | 89.80 % | 11.0 |",
        "| slim int8 | - | - | - | - | - |",
        "| sparse in torch | 1.0 | 0.5 | 0.25 | 88.00 % | - |",
        "Best is the fastest at batch 1 within 0.5 points of dense's accuracy: dense int8",
        "slim int8 was refused: it loses 3 points",
        "int8 is not proven equal.",
        "and of torch where a row says so",
        'compress.load("slim.sparse.safetensors", model=build)',
    ):
        assert text in card
    assert "slim.int8.onnx" not in card  # it was refused
    every_choice["choices"]["slim_int8"] = {**every_choice["choices"]["dense_int8"], "file": "slim.int8.onnx"}
    assert 'InferenceSession("slim.int8.onnx")' in model_card(every_choice)  # type: ignore[arg-type]


def test_it_says_that_files_were_read_back() -> None:
    parity = {"masked_vs_slim": 1e-8, "tolerance": 1e-5, "fresh_process": {"slim.onnx": 6e-8, "slim.pt2": 0.0}}
    assert "read back in a fresh process and compared with its network; they differ by 6.0e-08" in model_card(
        results(parity=parity)
    ).replace("\\", "")


def test_the_price_is_told_with_its_error() -> None:
    """The class that lost most, what ± means, how often it was timed and what else the machine did."""
    found = results(load={"cores": 2, "busy": 1.2}, evaluated={"samples": 500, "digest": "0" * 64})
    found["by_class"] = {"of": [50, 50], "dense": [17, 50], "slim": [0, 50], "names": ["cat", "dog"]}
    for name, model in found["models"].items():
        loss = model["metric"]["loss"]
        model["error"] = {"loss": {"low": loss - 0.0004, "high": loss + 0.0004, "method": "bootstrap"}}
        if name != "dense":
            model["change"] = {"loss": {"low": 0.0088, "high": 0.009, "method": "paired_bootstrap"}}
    card = model_card(found)
    for text in (
        "- Worst class cat: 17 of 50 right before, 0 after.",
        "| dense | 4.0 | 0.07 | 0.8 | 0.0054 ± 0.0004 |",
        "| slim | 3.2 | 0.07 | 0.8 | 0.0143 ± 0.0004 |",
        "the median of 900 runs at batch 1, 1 thread, while other programs kept 1.2 of 2 cores busy.",
        "the 95 % sampling error of 500 test samples",
        "Times are longer than on an idle machine",
    ):
        assert text in card
    quiet = model_card({**found, "load": {"cores": 2, "busy": 0.1}})
    assert "other programs kept 0.1 of 2 cores busy." in quiet
    assert "idle machine" not in quiet


def test_a_note_on_the_data_is_shown() -> None:
    card = model_card(results(data={"name": "mnist_sample", "note": "a sample of 5,000 digits, not MNIST"}))
    assert "**a sample of 5,000 digits, not MNIST**" in card


def test_what_is_absent_in_one_model_is_no_zero() -> None:
    found = results()
    del found["models"]["slim"]["latency_ms"]
    card = model_card(found)
    assert "| slim | 3.2 | - | - | 0.0143 |" in card


def test_the_least_there_can_be() -> None:
    """No file was written, and the user's own loaders do not tell how many samples they have."""
    found = results(data={"name": "mine"}, parity={"masked_vs_slim": 1e-8, "tolerance": 1e-5})
    found["recipe"]["export"] = []
    for figures in found["models"].values():
        del figures["latency_ms"]
        figures["bytes"] = {}
    card = model_card(found)
    for absent in ("onnx", "samples)", "How to load it", "atency", "KB"):
        assert absent not in card
    assert "Largest differences of outputs on the inputs tried: masked - slim 1.0e-08." in card


@pytest.mark.parametrize(
    "name",
    ["a | b", "<script>alert(1)</script>", "[click](http://x)", "two\n# lines", "`code`", "**bold**", "\x1b[2J\u202e"],
)
def test_names_cannot_become_markup(name: str) -> None:
    found = results(data={"name": name, "note": name})
    found["recipe"]["name"] = found["recipe"]["model"]["name"] = found["stages"][0]["target"] = name
    found["models"]["dense"]["metric"] = {name: 1.0}
    card = model_card(found)
    assert name not in card
    assert all(char.isprintable() or char == "\n" for char in card)
    assert "<script" not in card.replace(r"\<script", "")
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    text = re.sub("```python.*?```", "", card, flags=re.DOTALL)  # where a # begins a comment
    assert [line for line in text.splitlines() if line.startswith("# ")] == card.splitlines()[:1]
