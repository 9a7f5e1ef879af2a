from collections.abc import Iterable
from io import StringIO
from typing import Any

import pytest
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


def test_the_choices_side_by_side(results: dict[str, Any]) -> None:
    table = tables.choices(results)
    assert "tiny: what you can deploy" in text(table)
    for name in ("dense", "slim"):
        choice = results["choices"][name]
        kilobytes, batch_1, batch_4, loss, *_ = row(table, f"{name} ")[1:]
        assert kilobytes == f"{choice['bytes'] / 1000:,.1f}"
        assert batch_1 == f"{choice['latency_ms']['1']['p50']:.3g}"
        assert batch_4 == f"{choice['latency_ms']['4']['p50']:.3g}"
        value, interval = choice["metric"]["loss"], choice["error"]["loss"]
        shown, error = map(float, loss.split(" ± "))
        assert error == pytest.approx(max(interval["high"] - value, value - interval["low"]), rel=0.5)
        assert shown == pytest.approx(value, abs=error / 2)


def test_what_was_not_measured_has_no_column(changed: dict[str, Any]) -> None:
    for choice in changed["choices"].values():
        del choice["latency_ms"]
        choice.pop("peak_memory", None)
    del changed["parity"]["slim_vs_onnx"], changed["parity"]["slim_vs_pt2"]
    shown = text(tables.choices(changed))
    assert "KB" in shown
    assert "ms" not in shown
    assert "MB" not in shown
    for model in changed["models"].values():
        del model["latency_ms"]
    lines = list(tables.closing(changed))
    assert not [line for line in lines if "latency" in line or "onnx" in line]


def test_every_choice_fits_and_a_refused_one_has_no_figures(every_choice: dict[str, Any]) -> None:
    table = tables.choices(every_choice)
    assert row(table, "slim int8") == ["slim int8", "refused", *[""] * 4]
    assert row(table, "sparse in torch")[1:3] == ["1.0", "0.5"]
    assert row(table, "dense in torch") == ["dense in torch", "-", "2", "4", "-", "-"]
    lines = list(tables.closing(every_choice))
    assert "slim int8 was refused: it loses 3 points" in lines
    (agreed,) = [line for line in lines if line.startswith("dense int8 against its float file, test data: ")]
    assert "the same class for 99.50 %" in agreed
    assert "not proven equal" in agreed


def test_the_stages(results: dict[str, Any], changed: dict[str, Any]) -> None:
    (stage,) = results["stages"]
    table = tables.stages(results)
    assert row(table, "target")[1] == "nodes of latent"
    assert row(table, "criterion")[1] == "skeletonization"
    assert row(table, "removal")[1] == "soft, exponential over 5 steps"
    assert row(table, "achieved")[1] == "0.75 (6 of 8)"
    interval = results["models"]["slim"]["error"]["loss"]
    for when in ("before_removal", "after_removal"):
        name, figure = row(table, when.replace("_", " "))[1].split()
        assert name == "loss"
        assert float(figure) == pytest.approx(stage[when]["loss"], abs=(interval["high"] - interval["low"]) / 2)
        assert len(figure) < 8  # digits that mean something
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
        f"from scratch, {length}: loss 1.2, accuracy 57.00 %; better than the pruned network",
        "from scratch, 1 epoch, as many as the retraining: the loss became nan at step 2 of 10",
        "from scratch: the reason",
    ]
    assert set(lines) <= set(tables.closing(changed))


def shown_by(results: dict[str, Any]) -> Iterable[str]:
    yield text(tables.stages(results))
    yield text(tables.choices(results))


def test_the_worst_class_is_told(classes: dict[str, Any]) -> None:
    classes["by_class"] = {"of": [50, 50, 2], "dense": [17, 50, 2], "slim": [0, 49, 2], "names": ["cat", "dog", "eel"]}
    classes["best"]["choice"] = "slim"
    assert "worst class cat: 17 of 50 right before, 0 after" in tables.closing(classes)


def test_a_busy_machine_is_told(changed: dict[str, Any]) -> None:
    changed["load"] = {"cores": 4, "busy": 1.2}
    assert any("idle machine" in line for line in tables.closing(changed))
    changed["load"]["busy"] = 0.9
    lines = list(tables.closing(changed))
    assert not any("idle machine" in line for line in lines)
    assert any(line.endswith("while other programs kept 0.9 of 4 cores busy.") for line in lines)
    timed: Any = {"threads": 1, "runtimes": {}, "models": {}}
    assert list(tables.load_lines(timed)) == []
    assert list(tables.load_lines({**timed, "load": {"cores": 4, "busy": 0.9}})) == [
        "timed, while other programs kept 0.9 of 4 cores busy"
    ]


def test_nothing_is_cut_off_in_eighty_columns(results: dict[str, Any], every_choice: dict[str, Any]) -> None:
    for shown in (*shown_by(results), *shown_by(every_choice)):
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80


def test_names_with_brackets_are_no_markup(changed: dict[str, Any]) -> None:
    changed["stages"][0]["target"] = "decoder.[bold]*, [/x]"
    assert row(tables.stages(changed), "target")[1] == "nodes of decoder.[bold]*, [/x]"
    assert "my.[red]recipe" in text(tables.recipes([("my.[red]recipe", "does [/nothing]")]))
    figures = dict.fromkeys(("p50", "p90", "p99", "min", "ratio"), 1.0) | {"runs": 5}
    found: Any = {"threads": 1, "runtimes": {"[a]/x.onnx": "onnxruntime"}, "models": {"[a]/x.onnx": {"1": figures}}}
    assert "[a]/x.onnx" in text(tables.latencies(found))


def test_runtimes_are_told_apart() -> None:
    figures = dict.fromkeys(("p50", "p90", "p99", "min", "ratio"), 1.0) | {"runs": 5}
    runtimes = {"a.onnx": "onnxruntime", "b.onnx": "onnxruntime"}
    found: Any = {"threads": 1, "runtimes": runtimes, "models": {name: {"1": figures} for name in runtimes}}
    assert "onnxruntime, threads: 1" in text(tables.latencies(found))
    found["runtimes"]["b.onnx"] = "torch"
    assert row(tables.latencies(found), "a.onnx")[-1] == "onnxruntime"
    assert row(tables.latencies(found), "b.onnx")[-1] == "torch"


def test_the_closing_lines(results: dict[str, Any]) -> None:
    lines = list(tables.closing(results))
    dense, slim = (results["models"][name]["params"] for name in ("dense", "slim"))
    assert lines[0].startswith("fastest at batch 1 within 0.5 % of dense's loss: ")
    share = f"{100 * (1 - slim / dense):.2g}"
    assert f"parameters: {dense:,} -> {slim:,}, {share} % fewer" in lines  # never 1.00 times
    assert "latent nodes: 8 -> 2, 4.00\N{MULTIPLICATION SIGN} fewer" in lines
    timed = results["models"]["slim"]["latency_ms"]["1"]
    assert timed["runs"] >= 30
    (latency,) = [line for line in lines if line.startswith("Latency: ")]
    assert latency.startswith(f"Latency: the median of {timed['runs']:,} runs at batch 1, 1 thread")
    (errors,) = [line for line in lines if line.startswith("\N{PLUS-MINUS SIGN}")]
    assert f"{results['evaluated']['samples']} test samples" in errors
    (proof,) = [line for line in lines if line.startswith("largest differences: masked - slim ")]
    assert "slim - onnxruntime" in proof
    assert "slim - .pt2" in proof
    assert proof.endswith("(tolerance 1e-05)")
    assert lines[-1].startswith(f"time: {results['timing']['total']:.1f} s, ")
