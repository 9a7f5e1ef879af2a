"""Every block that README, docs and recipes show is run, or stands here with the reason why not."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from blocks import FOLLOWED, Block, blocks, commands, shortened
from reader import finish, given
from typer.testing import Result

import compress
from compress.graph.stats import measure
from compress.recipe.loading import load_recipe
from compress.remove.pruner import Pruner

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for pattern in ("*.md", "docs/*.md", "recipes/*.md") for page in ROOT.glob(pattern))

WITH_FILES = {f"docs/{page}" for page in FOLLOWED}
"""Pages that are run with the files that they show, in tests/test_bring_your_own.py."""

RUN = ("README.md", "docs/quickstart.md", "recipes/README.md")
"""Pages whose commands are run here, one after the other in one folder, as `blocks.shortened` says."""

NOT_RUN = {
    "docs/benchmarks.md": "hours; every command is parsed, and small comparisons are run in tests/compare",
    "docs/cluster.md": "several machines; such clusters are run in tests/sweep/cluster",
    "docs/commands.md": "one example a command, with files of the reader's; parsed, and run on the pages above",
    "docs/compare.md": "many cells; parsed, run in small in tests/compare and in the tour",
    "docs/gpu.md": "for a GPU; run on a CPU in tests/test_gpu_benchmark.py",
    "docs/latent-features.md": "minutes; such a recipe is run in small in tests/run/test_shaping.py",
    "docs/int8.md": "of the page's own file; run in tests/quantize/test_page.py",
    "docs/extending.md": "for a copy of the package; what it leads to is run below",
    "docs/limits.md": "minutes and gigabytes; a benchmark",
    "docs/plan.md": "of the page's own recipe; run in tests/test_docs.py, and planning on the pages above",
    "docs/terminal.md": "run in tests/test_docs.py",
    "docs/reliability.md": "resumes an interrupted run; run in tests/run/test_resume.py",
    "docs/report.md": "of folders of the reader's; run on the pages above",
    "docs/search.md": "minutes; parsed, run in small in tests/explore, and in the tour from the README",
    "docs/sharded.md": "two processes; run in tests/ranks/test_sharded.py",
    "docs/soft-pruning.md": "draws figures for minutes",
}
"""Pages whose commands are not, and why."""

ELSEWHERE = {
    "compare": "tests/compare and the tour",
    "demo": "tests/test_cli.py and the tour",
    "reproduce": "tests/paper",
    "search": "tests/explore and the tour",
    "sensitivity": "tests/explore and the tour",
}
"""Commands that take too long to be run here, and where they are run."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_block_has_a_language_that_is_checked() -> None:
    found = {(name(page), block.language) for page in PAGES for block in blocks(page)}
    assert len(found) > 10
    assert {language for _, language in found} <= {"", "python", "yaml", "diff", "text", "json"}
    assert {page for page, language in found if language == "json"} == {"docs/report.md"}  # tests/run/test_contract.py
    assert {page for page, language in found if language == "text"} == {
        "docs/faq.md",
        "docs/plan.md",
        "docs/search.md",
        "docs/security.md",
        "docs/terminal.md",
    }, "what a command prints"
    assert {page for page, language in found if language == ""} - WITH_FILES == {*RUN, *NOT_RUN}
    assert {page for page, language in found if language == "python"} - WITH_FILES == {
        "README.md",
        "docs/api.md",
        "docs/extending.md",
        "docs/faq.md",
        "docs/int8.md",  # in tests/quantize/test_page.py
        "docs/latent-features.md",  # tests/run/test_shaping.py
        "docs/python.md",
        "docs/report.md",  # tests/run/test_contract.py
        "docs/sharded.md",  # tests/ranks/test_sharded.py
        "docs/sparse.md",
        "docs/terminal.md",  # in tests/test_docs.py
    }
    assert {page for page, language in found if language == "diff"} == {"docs/extending.md"}


def test_every_command_is_of_a_kind_that_is_checked() -> None:
    """`make` and `python` in tests/test_docs.py, `pip` by the tour, `torchrun` in tests/ranks, `ray` in tests/sweep."""
    cli = r"(torchrun --nproc-per-node 2 -m compress\.cli|(RAY_ADDRESS=\S+ )?compress) (--)?[a-z-]+"
    ours = rf"({cli}|torchrun --nproc-per-node 2 train\.py)"
    kinds = re.compile(rf"({ours}|ray start|make( [a-z]+)+|python (benchmarks|docs|examples)/\w+\.py|pip install)\b")
    lines = [line for page in PAGES if page.name not in FOLLOWED for line in commands(page)]
    assert len(lines) > 30
    assert [line for line in lines if not kinds.match(line)] == []


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(
    page: str, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the page, whose later commands take what the earlier ones have left."""
    monkeypatch.chdir(tmp_path)
    lines = [line for line in commands(ROOT / page) if line.startswith("compress ")]
    assert lines
    for line in lines:
        if line.split()[1] in ELSEWHERE:
            continue
        command, _, file = shortened(line).partition(" > ")
        result = run(*shlex.split(command)[1:], *only_wanted_files(line, lines))
        if file:
            Path(file).write_text(result.stdout, encoding="utf-8")


def only_wanted_files(line: str, lines: list[str]) -> list[str]:
    """Converting a network takes seconds: `apply` writes those files that a later command reads, the tour all."""
    if not line.startswith("compress apply"):
        return []
    out = re.search(r" -o (\S+)", line)
    formats = [kind for kind in ("onnx", "safetensors", "pt2") if out and f"{out[1]}/slim.{kind}" in " ".join(lines)]
    # A shortened training may well end no better than a constant output.
    short = [f"export=[{', '.join(formats)}]", "benchmark.batch_sizes=[1]", "allow_constant=true"]
    return [word for change in short for word in ("--set", change)]


def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = given()
    dense = measure(names["build"](), names["example"]).macs
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(block.text, "README.md", "exec"), names)
    assert 0.3 * dense < measure(names["small"], names["example"]).macs <= 0.5 * dense
    assert Path("small.onnx").exists()


def test_the_loops_of_ones_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a block says that the loop is the one above, `finish` is the rest of it."""
    monkeypatch.chdir(tmp_path)
    names = given()
    model, data, dense = names["model"], names["example"], names["build"]()
    weights, nodes, at_once, statistics, saving = blocks(ROOT / "docs" / "python.md", "python")
    total = model.fc.weight.numel()
    for block in (weights, nodes, at_once, saving):
        exec(compile(block.text, "python.md", "exec"), names)
        finish(names["pruner"])
        if block is weights:
            assert int((model.fc.weight == 0).sum()) == round(0.9 * total)
            small = names["small"]
        elif block is nodes:
            slim = compress.slim(model, data)
            assert measure(slim, data).macs <= 0.5 * measure(dense, data).macs
            assert len(slim.get_parameter("decoder.1.weight")) == len(model.get_parameter("decoder.1.weight"))
        elif block is at_once:
            assert int((model.fc.weight == 0).sum()) == round(0.97 * total)
    assert torch.equal(names["again"](data), small(data))
    exec(compile(statistics.text, "python.md", "exec"), names)
    assert names["normed"][0].num_batches_tracked == len(names["loader"])


def test_the_code_of_the_answers_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = given()
    for block in blocks(ROOT / "docs" / "faq.md", "python"):
        exec(compile(block.text, "faq.md", "exec"), names)
    assert "decoder.3" in capsys.readouterr().out  # whose nodes are the network's output
    assert names["pruner"].steps_done == names["saved"]["pruner"]["steps_done"] > 0


def test_the_examples_of_the_api_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the page; the last one is of Accelerate, whose tests are in tests/loops."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    *ours, accelerate = blocks(ROOT / "docs" / "api.md", "python")
    for block in ours:
        exec(compile(block.text, "api.md", "exec"), names)
    assert "network" in capsys.readouterr().out  # why the last layer keeps its width
    assert names["small"][0].out_features < 64
    assert torch.equal(names["again"](names["example"]), names["small"].eval()(names["example"]))
    session = onnxruntime.InferenceSession(tmp_path / "twin.onnx")
    assert [one.name for one in session.get_inputs()] == ["left", "right"]
    assert [one.name for one in session.get_outputs()] == ["logits"]
    if importlib.util.find_spec("accelerate") is not None:
        names["model"] = names["build"]()
        exec(compile(accelerate.text, "api.md", "exec"), names)
        assert int((names["model"][0].weight == 0).sum()) > 0


@pytest.mark.parametrize(
    "block",
    [block for page in PAGES if page.name not in FOLLOWED for block in blocks(page, "yaml")],
    ids=lambda block: name(block.page),
)
def test_what_is_shown_of_a_recipe_loads(block: Block, tmp_path: Path) -> None:
    """A whole recipe, or stages or another key to be put into one."""
    rest = "name: x\nmodel: {name: resnet20}\ndata: {name: cifar10}\n"
    rest += "" if block.text.startswith("task:") else "task: classify\n"
    stages = "stages: [{target: {nodes: '*'}, criterion: norms, sparsity: 0.5, removal: hard}]\n"
    head = "" if block.text.startswith("name:") else rest + ("" if "stages:" in block.text else stages)
    (tmp_path / "recipe.yaml").write_text(head + block.text, encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").stages


# --- the user's criterion and removal ---

EXTENDING = ROOT / "docs" / "extending.md"


def test_a_criterion_and_a_removal_of_ones_own_prune() -> None:
    names, numbers = given(), []
    for block in blocks(EXTENDING, "python"):
        exec(compile(block.text, "extending.md", "exec"), names)
        if "pruner =" in block.text:
            finish(names.pop("pruner"))
            model = names["model"].decoder
            numbers.append(sum(int((weight == 0).sum()) for weight in (model[1].weight, model[3].weight)))
            names["model"] = names["build"]()
    assert numbers == [round(0.9 * (64 * 128 + 128 * 6))] * 2

    weight = np.random.default_rng(0).normal(size=(5, 7))
    size = np.abs(weight)
    wanted = size / size.sum(0) + size / size.sum(1)[:, None]
    assert names["relative_importance"](torch.tensor(weight)).numpy() == pytest.approx(wanted)


def test_the_removal_of_ones_own_takes_equal_parts() -> None:
    names = given()
    code = {block.title: block.text for block in blocks(EXTENDING, "python")}
    exec(compile(code["compress/remove/removals/rounds.py"], "rounds.py", "exec"), names)
    weight = names["model"].get_parameter("decoder.1.weight")
    removal = names["Rounds"](steps=30, rounds=4)
    pruner = Pruner(names["model"], "decoder.1.weight", sparsity=0.8, removal=removal)
    zeros = [int((weight == 0).sum())]
    for _ in range(30):
        pruner.step()
        zeros.append(int((weight == 0).sum()))
    assert [zeros[0], zeros[10], zeros[20], zeros[30]] == [round(0.2 * part * weight.numel()) for part in (1, 2, 3, 4)]
    assert len(set(zeros)) == 4


@pytest.mark.extended
def test_recipes_can_name_them_once_the_page_is_followed(tmp_path: Path, trained: Path, recipe_text: str) -> None:
    """In a copy of the package: the files that the page shows, and its line in each list."""
    if shutil.which("git") is None:
        pytest.skip("git applies the changes")
    shutil.copytree(ROOT / "compress", tmp_path / "compress", ignore=shutil.ignore_patterns("__pycache__"))
    files = {block.title: block.text for block in blocks(EXTENDING, "python") if block.title.startswith("compress/")}
    assert len(files) == len(blocks(EXTENDING, "diff")) == 2
    for path, text in files.items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    for block in blocks(EXTENDING, "diff"):
        subprocess.run(["git", "apply", "--unidiff-zero", "-"], cwd=tmp_path, input=block.text, text=True, check=True)
    text = """
  - target: {weights: ["decoder.*"]}
    criterion: relative_importance
    sparsity: 0.5
    removal: {kind: rounds, rounds: 3}
    retrain: {epochs: 1, optimizer: adamw, lr: 1e-3}
"""
    recipe = re.sub(r"(?<=stages:).*?(?=export:)", lambda _: text, recipe_text, flags=re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    command = [sys.executable, "-m", "compress.cli", "apply", "recipe.yaml", str(trained), "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (stage,) = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["stages"]
    assert (stage["criterion"]["kind"], stage["removal"]["kind"]) == ("relative_importance", "rounds")
    assert stage["achieved"] == pytest.approx(0.5, abs=1e-3)


def test_the_page_about_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    files, int8, faster, patterns = blocks(ROOT / "docs" / "sparse.md", "python")
    exec(compile(files.text, "sparse.md", "exec"), names)
    dense, again = names["model"].state_dict(), names["again"].state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(dense[name], tensor) for name, tensor in again.items())
    size = (tmp_path / "slim.sparse.safetensors").stat().st_size
    assert 10 * size < sum(tensor.nbytes for tensor in dense.values())
    exec(compile(int8.text, "sparse.md", "exec"), names)
    assert 2 * (tmp_path / "slim.sparse.int8.safetensors").stat().st_size < size
    rounded = names["rounded"].state_dict()  # type: ignore[attr-defined]
    assert all(torch.allclose(rounded[name], tensor, atol=1e-3) for name, tensor in dense.items())
    exec(compile(faster.text, "sparse.md", "exec"), names)
    exec(compile(patterns.text, "sparse.md", "exec"), names)
    weight = names["model"][0].weight  # type: ignore[index]
    assert int((weight.view(512, -1, 4) != 0).sum(dim=-1).max()) == 2
