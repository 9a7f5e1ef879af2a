from collections.abc import Iterable
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from compress.report import tables


def text(table: Table, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def row(table: Table, label: str) -> list[str]:
    """The cells of the line that begins with `label`."""
    (line,) = [line for line in text(table).splitlines() if line.strip("│ ").startswith(label)]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_models_side_by_side(results: dict[str, Any]) -> None:
    table = tables.models(results)
    found = [results["models"][name] for name in ("dense", "masked", "slim")]
    assert "tiny: the network before and after" in text(table)
    assert row(table, "parameters") == ["parameters", *(f"{model['params']:,}" for model in found)]
    assert row(table, "of them nonzero")[1:] == [f"{model['nonzero']:,}" for model in found]
    assert row(table, "test loss")[1:] == [f"{model['metric']['loss']:.4g}" for model in found]
    assert row(table, "onnx, gzip, KB")[1:] == [f"{model['bytes']['onnx_gzip'] / 1000:,.1f}" for model in found]
    assert row(table, "latency p50, batch 4, ms")[1:] == [f"{model['latency_ms']['4']['p50']:.3f}" for model in found]


def test_what_was_not_measured_has_no_row(changed: dict[str, Any]) -> None:
    for model in changed["models"].values():
        del model["latency_ms"]
        model["bytes"] = {}
    del changed["parity"]["slim_vs_onnx"], changed["parity"]["slim_vs_pt2"]
    shown = text(tables.models(changed))
    assert "latency" not in shown
    assert "KB" not in shown
    lines = list(tables.closing(changed))
    assert not [line for line in lines if "latency" in line or "onnx" in line]


def test_the_stages(results: dict[str, Any], changed: dict[str, Any]) -> None:
    (stage,) = results["stages"]
    table = tables.stages(results)
    assert row(table, "target")[1] == "nodes of latent"
    assert row(table, "criterion")[1] == "skeletonization"
    assert row(table, "removal")[1] == "soft, exponential over 5 steps"
    assert row(table, "achieved")[1] == "0.75 (6 of 8)"
    assert row(table, "before removal")[1] == f"loss {stage['before_removal']['loss']:.4g}"
    assert row(table, "after removal")[1] == f"loss {stage['after_removal']['loss']:.4g}"
    changed["stages"].append({**stage, "removal": {"kind": "hard"}, "removal_steps": 0})
    assert row(tables.stages(changed), "removal")[1:] == ["soft, exponential over 5 steps", "hard"]


def test_the_shape_from_scratch(changed: dict[str, Any]) -> None:
    run = {"epochs": 17, "steps": 170, "seconds": 9.0, "metric": {"loss": 1.2, "accuracy": 0.57}, "better": "scratch"}
    diverged = {"epochs": 1, "steps": 10, "seconds": 1.0, "diverged": "the loss became nan at step 2 of 10"}
    assert not list(tables.scratch(changed))
    changed["rivals"] = {"scratch": {"total": run, "retraining": diverged, "missing": "the reason"}}
    lines = list(tables.scratch(changed))
    length = "17 epochs, as many as the dense training and the retraining"
    assert lines == [
        f"from scratch, {length}: loss 1.2, accuracy 0.57; better than the pruned network",
        "from scratch, 1 epoch, as many as the retraining: the loss became nan at step 2 of 10",
        "from scratch: the reason",
    ]
    assert set(lines) <= set(tables.closing(changed))


def shown_by(results: dict[str, Any]) -> Iterable[str]:
    yield text(tables.stages(results))
    yield text(tables.models(results))


def test_nothing_is_cut_off_in_eighty_columns(results: dict[str, Any]) -> None:
    for shown in shown_by(results):
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80


def test_names_with_brackets_are_no_markup(changed: dict[str, Any]) -> None:
    changed["stages"][0]["target"] = "decoder.[bold]*, [/x]"
    assert row(tables.stages(changed), "target")[1] == "nodes of decoder.[bold]*, [/x]"
    assert "my.[red]recipe" in text(tables.recipes([("my.[red]recipe", "does [/nothing]")]))
    figures = dict.fromkeys(("p50", "p90", "p99", "min", "ratio"), 1.0) | {"runs": 5}
    found = {"threads": 1, "models": {"out[a]/x.onnx": {"1": figures}}}
    assert "out[a]/x.onnx" in text(tables.latencies(found))


def test_the_closing_lines(results: dict[str, Any]) -> None:
    lines = list(tables.closing(results))
    dense, slim = (results["models"][name]["params"] for name in ("dense", "slim"))
    assert lines[0] == f"parameters: {dense:,} -> {slim:,}, {dense / slim:.2f} times fewer"
    assert [line for line in lines if line.startswith("latency at batch 4: ")]
    (proof,) = [line for line in lines if line.startswith("largest differences: masked - slim ")]
    assert "slim - onnxruntime" in proof
    assert "slim - .pt2" in proof
    assert proof.endswith("(tolerance 1e-05)")
    assert lines[-1].startswith(f"time: {results['timing']['total']:.1f} s, ")
