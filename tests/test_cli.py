"""The commands as people and scripts use them: stdout, stderr, and which options count."""

import errno
import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import Result

import compress
from compress.cli import main
from compress.cli.console import reporting
from compress.data.sources import from_npz
from compress.recipe.schema import json_schema
from compress.recipe.shipped import shipped, shipped_text
from compress.run import demo

Run = Callable[..., Result]


def document(result: Result) -> Any:
    """Stdout, which must be one JSON document, and one that any reader takes: no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(result.stdout, parse_constant=refuse)


# --- one JSON document, and nothing else ---


def test_train_as_json(run: Run, recipe: Path, tmp_path: Path) -> None:
    result = run("train", recipe, "-o", tmp_path / "model.safetensors", "--json", "--set", "train.epochs=1")
    found = document(result)
    assert found.keys() == {"model", "data", "steps", "seconds", "epoch_losses", "metric", "error"}
    assert found["model"] == str(tmp_path / "model.safetensors")
    assert found["steps"] == 5
    assert (tmp_path / "model.safetensors").exists()


def test_apply_as_json_is_results_json(run: Run, recipe: Path, trained: Path, tmp_path: Path) -> None:
    result = run("apply", recipe, trained, "-o", tmp_path / "out", "--json", "--quiet")
    assert document(result) == json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [line for line in result.stderr.splitlines() if not line.startswith("warning: ")] == []


@pytest.mark.parametrize("suffix", ["onnx", "pt2", "safetensors"])
def test_inspect_as_json(run: Run, applied: Path, suffix: str) -> None:
    found = document(run("inspect", applied / f"slim.{suffix}", "--json"))
    assert found["format"] == suffix
    assert found["bytes"] == (applied / f"slim.{suffix}").stat().st_size


def test_bench_as_json(run: Run, applied: Path) -> None:
    file = applied / "slim.onnx"
    options = ("--batch-sizes", "2,3", "--threads", "1", "--seconds", "0.1")
    found = document(run("bench", file, *options, "--json"))
    assert found["threads"] == 1
    (batches,) = found["models"].values()
    assert batches.keys() == {"2", "3"}
    for figures in batches.values():
        assert 0 < figures["min"] <= figures["p50"] <= figures["p90"] <= figures["p99"]
        assert figures["runs"] >= 5
        assert figures["ratio"] == 1.0
    shown = run("bench", file, *options).stdout
    assert "slim.onnx" in shown.replace("│", "").replace("\n", "").replace(" ", "")


def test_recipes_as_json(run: Run) -> None:
    assert document(run("recipes", "--json")) == dict(shipped())
    assert document(run("recipes", "mnist_ae", "--json"))["model"] == {
        "name": "autoencoder",
        "latent": 64,
        "image": [1, 28, 28],
    }
    assert document(run("recipes", "--schema")) == json.loads(json.dumps(json_schema()))


@pytest.mark.parametrize(
    "arguments",
    [["apply", "nowhere", "m.pt"], ["inspect", "m.pt"], ["bench", "m.onnx"], ["recipes", "nowhere"]],
)
def test_a_mistake_leaves_stdout_empty(run: Run, arguments: list[str]) -> None:
    result = run(*arguments, "--json", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= 2


# --- what people read ---


def test_train_says_what_comes_next(run: Run, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model.pt"
    result = run("train", recipe, "-o", out, "--set", "train.epochs=1")
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{out}: test loss 0.")
    assert "after 5 steps in" in first
    assert second == f"next: compress apply {recipe} {out} --set train.epochs=1 -o tiny"
    *_, ended, note = result.stderr.splitlines()
    assert ended.startswith("train tiny: 1 epoch, 5 steps in ")
    assert note == "note: No test file: the test set is the last 20 of 120 images."


def test_apply_shows_the_tables_and_the_files(applied: Path) -> None:
    text = (applied.parent / "terminal.txt").read_text(encoding="utf-8")
    assert text.isprintable() or "\x1b" not in text
    for part in ("what was pruned", "tiny: what you can deploy", "parameters: ", "largest differences: "):
        assert part in text
    *_, last = text.splitlines()
    assert last == f"next: compress inspect {applied / 'slim.safetensors'}"
    assert "".join(f"  {path}\n" for path in sorted(applied.glob("[!.]*"))) in text


def test_inspect_shows_tensors_and_notes(run: Run, applied: Path) -> None:
    text = run("inspect", applied / "slim.safetensors").stdout
    assert "latent.weight" in text
    assert "2 x 128" in text
    assert "% of them zero" in text
    assert "shape_edits: [" in text


def test_names_in_a_file_do_not_steer_the_terminal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = ["\x1b[2J\x1b]0;title\x07", "[bold red]markup[/bold red]", "[/]", "\u202egnp", "\r\b"]
    save_file({name: torch.ones(1) for name in names}, tmp_path / "w.safetensors", {"note\x1b[1m": "\x1b[31mred"})
    result = run("inspect", tmp_path / "w.safetensors")
    assert all(char.isprintable() or char == "\n" for char in result.stdout)
    for name in (r"\x1b[2J\x1b]0;title\x07", "[bold red]markup[/bold red]", "[/]", r"\u202egnp", r"\r\x08"):
        assert name in result.stdout
    assert r"note\x1b[1m: \x1b[31mred" in result.stdout
    assert document(run("inspect", tmp_path / "w.safetensors", "--json"))["tensors"][0]["name"] in names
    text = run("export", tmp_path / "w.safetensors", "--recipe", "mnist_ae", "-o", tmp_path / "out", code=2).stderr
    assert r"unknown to the network: " in text
    assert all(char.isprintable() or char == "\n" for char in text)


def test_recipes_are_listed_and_printed(run: Run) -> None:
    listed = run("recipes").stdout
    assert all(name in listed for name, _ in shipped())
    assert run("recipes", "mnist_ae").stdout == shipped_text("mnist_ae").rstrip() + "\n"
    assert "did you mean mnist_ae?" in run("recipes", "mnist_a", code=2).stderr


def test_leaving_does_not_search_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_threshold()
    monkeypatch.setattr(sys, "argv", ["compress", "--version"])
    # Another test in this process may have loaded the compiler whose objects would be told of.
    monkeypatch.delitem(sys.modules, "triton._C.libtriton", raising=False)
    try:
        with pytest.raises(SystemExit):
            main()
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"{compress.__version__}\n"
    commands = ("train", "plan", "apply", "export", "bench", "inspect", "recipes", "demo")
    assert all(command in run("--help").stdout for command in commands)
    for command in commands:
        assert f"compress {command}" in " ".join(run(command, "-h").stdout.split())


def test_an_example_of_every_command_is_in_its_help(run: Run) -> None:
    for command in ("train", "plan", "apply", "export", "bench", "inspect", "recipes"):
        text = " ".join(run(command, "--help").stdout.split())
        assert text.count(f"compress {command}") >= 2, "the usage line, and an example"


# --- options ---


@pytest.mark.extended
def test_seed_is_the_recipes_or_the_options(run: Run, recipe: Path, trained: Path, tmp_path: Path) -> None:
    options = ("--json", "--set", "stages.0.criterion=random", "--set", "stages.0.removal=hard")
    seeds = {}
    for seed in ([], ["--seed", "5"], ["--set", "seed=5"]):
        out = tmp_path / f"out{len(seeds)}"
        seeds[" ".join(seed)] = document(run("apply", recipe, trained, "-o", out, *options, *seed))
    assert [found["seed"] for found in seeds.values()] == [0, 5, 5]
    losses = [found["stages"][0]["epoch_losses"] for found in seeds.values()]
    assert losses[0] != losses[1] == losses[2]


def test_the_last_change_wins_and_all_of_them_are_in_the_results(
    run: Run, recipe: Path, trained: Path, tmp_path: Path
) -> None:
    changes = ("stages.0.sparsity=0.25", "stages.0.sparsity=0.5", "stages.0.retrain.epochs=1", "name=other")
    options = [part for change in changes for part in ("--set", change)]
    found = document(run("apply", recipe, trained, "-o", tmp_path / "out", "--json", *options))
    assert found["stages"][0]["achieved"] == 0.5
    assert found["stages"][0]["steps"] == 5
    assert found["recipe"]["name"] == "other"


def test_the_folder_is_named_like_the_recipe(
    run: Run, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("apply", recipe, trained)
    assert (tmp_path / "tiny" / "results.json").exists()


@pytest.mark.parametrize("by", ["option", "environment", "both"])
def test_where_data_sets_lie(run: Run, recipe: Path, tmp_path: Path, by: str, pictures: Any) -> None:
    """CIFAR-10's place is used, since an .npz file may hold it."""
    chance = np.random.default_rng(0)
    (tmp_path / "here" / "cifar10").mkdir(parents=True)
    for part in ("train", "test"):
        arrays = {"images": chance.integers(0, 255, (20, 3, 32, 32), np.uint8), "labels": np.arange(20) % 10}
        np.savez(tmp_path / "here" / "cifar10" / f"{part}.npz", **arrays)
    options = [] if by == "environment" else ["--data-root", tmp_path / "here"]
    environment = {
        "option": {},
        "environment": {"COMPRESS_DATA": str(tmp_path / "here")},
        "both": {"COMPRESS_DATA": "x"},
    }
    changes = [
        "model={name: conv_classifier}",
        "data={name: cifar10}",
        "task=classify",
        "train.epochs=1",
        "stages.0.target.nodes=dense.0",
    ]
    settings = [part for change in changes for part in ("--set", change)]
    result = run("train", recipe, "-o", tmp_path / "m.pt", "--json", *options, *settings, env=environment[by])
    assert document(result)["data"]["name"] == "cifar10"


def test_a_later_look_at_an_output_needs_no_force(run: Run, applied: Path) -> None:
    assert document(run("inspect", applied / "checkpoint" / "masked.safetensors", "--json"))["zeros"] > 0


# --- the demo ---


@pytest.mark.parametrize("mnist", [pytest.param(True, marks=pytest.mark.extended), False], ids=["mnist", "sample"])
def test_the_demo(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist: bool, pictures: Any) -> None:
    """With few images and epochs; without MNIST it says that it takes the sample."""
    np.savez(tmp_path / "digits.npz", **pictures(60, classes=10, size=28))
    digits = from_npz(tmp_path / "digits.npz")

    def load(*arguments: object, **first: object) -> Any:
        return digits

    def unreachable(*arguments: object, **first: object) -> Any:
        raise compress.errors.DataError("no network [here]")  # type: ignore[attr-defined]

    monkeypatch.setattr("compress.data.sources.mnist", load if mnist else unreachable)
    monkeypatch.setattr("compress.data.sources.mnist_sample", load)
    brief = ["train.epochs=1", "stages.0.removal.over=1 epoch", "stages.0.retrain.epochs=1"]
    brief += ["stages.1.retrain.epochs=2", "stages.1.removal.over=1 epoch", "stages.1.criterion.samples=50"]
    brief += ["allow_constant=true"]
    monkeypatch.setattr(demo, "BRIEF", {"mnist": brief, "mnist_sample": [*brief, "data.name=mnist_sample"]})
    result = run("demo", "-o", tmp_path / "demo", "--json")
    found = document(result)
    assert found["stages"][0]["achieved"] == 0.75
    assert found["recipe"]["data"]["name"] == ("mnist" if mnist else "mnist_sample")
    assert ("Falling back to mnist_sample" in result.stderr) == (not mnist)
    assert ("no network [here]" in result.stderr) == (not mnist)
    assert sum("Falling back" in warning["text"] for warning in found["warnings"]) == (not mnist)
    assert (tmp_path / "demo" / "model.pt").exists()
    assert (tmp_path / "demo" / "mnist_ae" / "results.json").exists()
    if mnist:
        shown = run("demo", "-o", tmp_path / "demo", "--force").stdout
        assert "mnist_ae: what you can deploy" in shown
        assert "next: compress recipes mnist_ae > mine.yaml" in shown
        assert "test images:" in shown
        assert shown.splitlines()[-1].startswith("The slim network: 64 to 16 latent nodes")
        quiet = run("demo", "-o", tmp_path / "demo", "--force", "--quiet").stderr
        assert [line for line in quiet.splitlines() if not line.startswith("warning: ")] == []


# --- as a program ---


def test_the_program_returns_the_exit_code(tmp_path: Path) -> None:
    """`python -m compress.cli` and the installed script are this."""
    command = [sys.executable, "-m", "compress.cli", "recipes", "mnist_a"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: mnist_a: no shipped recipe of that name; did you mean mnist_ae?\n"


def test_what_is_left_out_of_a_checkpoint_is_noted(
    run: Run, recipe: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    named = {f"model._orig_mod.{name}": tensor for name, tensor in weights.items()}
    torch.save({"state_dict": named, "epoch": 3}, tmp_path / "w.ckpt")
    result = run("plan", recipe, tmp_path / "w.ckpt")
    (note,) = [line for line in result.stderr.splitlines() if "state_dict" in line]
    assert note == (
        f'note: {tmp_path / "w.ckpt"}: took the weights under "state_dict", without the prefix "model._orig_mod."; '
        "left out 1 other: epoch"
    )


@pytest.mark.parametrize("quiet", [False, True])
def test_notes_appear_once_unless_quiet(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(debug=False, quiet=quiet):
        for _ in range(2):  # a rehearsal loads the same file again
            logging.getLogger("compress.files.layouts").info("w.pt: %s", "\x1b[31mred")
    assert capsys.readouterr().err == ("" if quiet else "note: w.pt: \\x1b[31mred\n")


def test_a_path_that_nothing_has_checked_is_an_error_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as one in a folder that may not be entered; a broken pipe has no path and is not the user's mistake."""
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "locked/out")
    with pytest.raises(typer.Exit) as ended, reporting(debug=False):
        raise denied
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "error: locked/out: permission denied\n"
    with pytest.raises(BrokenPipeError), reporting(debug=False):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
