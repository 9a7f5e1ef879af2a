"""A network that ends no better than a constant output fails the run; one that is good does not, on any test set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

from compress.run.against_constant import Compared, judged_by
from compress.task_words import WORDS
from compress.tasks import NamedTask, OwnTask, Task
from compress.tasks.constant import ConstantOutput
from compress.train.metrics import evaluate

Run = Callable[..., Result]
LARGE = 400


class Given(nn.Module):
    """Returns its inputs, which are the outputs of a network here."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def absolute(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs().mean()


def truth(word: str, count: int, seed: int = 0) -> Any:
    """Targets of `count` samples, with 3 values each, and what a perfect network would say."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(count, 3, generator=rng)
    if word == "classify":
        labels = torch.randint(3, (count,), generator=rng)
        return labels, 5 * nn.functional.one_hot(labels, 3).float()
    if word == "language_model":
        tokens = torch.randint(3, (count, 4), generator=rng)
        return tokens, 5 * nn.functional.one_hot(tokens, 3).float()
    if word == "multilabel":
        return (values > 0).long(), 5 * values
    if word == "anomaly":
        flags = torch.arange(count) % 4 == 0
        return {"input": values, "anomaly": flags}, values + 2.0 * flags[:, None]
    return values, values.clone()


def blind(word: str, said: Tensor) -> Tensor:
    """What a network says that has lost everything: the same for each sample, but for the last digits."""
    mean = said.mean(0, keepdim=True).expand(said.shape)
    return mean + 1e-4 * torch.randn(said.shape, generator=torch.Generator().manual_seed(1))


def noisy(said: Tensor, noise: float) -> Tensor:
    return said + noise * torch.randn(said.shape, generator=torch.Generator().manual_seed(2))


def batches(outputs: Tensor, targets: Any, size: int = 64) -> Any:
    def part(rows: slice) -> Any:
        return {key: one[rows] for key, one in targets.items()} if isinstance(targets, dict) else targets[rows]

    return [(outputs[i : i + size], part(slice(i, i + size))) for i in range(0, len(outputs), size)]


def compared(task: Task, dense: Tensor, slim: Tensor, targets: Any) -> Any:
    """The verdict; the constant output is that of the test targets themselves."""
    found = ConstantOutput(task)
    evaluate(Given(), lambda: batches(dense, targets), task, lambda o, t: found.see(o, t, len(o)))
    beside = Compared(task, found)
    evaluate(Given(), lambda: batches(dense, targets), task, beside.dense)
    evaluate(Given(), lambda: batches(slim, targets), task, beside.slim)
    return beside.document()


TASKS: list[tuple[str, Task]] = [*((word, word) for word in WORDS), ("regress", OwnTask(absolute))]
IDS = [*WORDS, "own"]


@pytest.mark.parametrize(("word", "task"), TASKS, ids=IDS)
def test_a_network_that_lost_everything_is_no_better(word: str, task: Task) -> None:
    targets, said = truth(word, LARGE)
    found = compared(task, noisy(said, 0.3), blind(word, said), targets)
    assert found["verdict"] == "no better"
    assert min(found["kept"].values()) < 0.05


@pytest.mark.parametrize(("word", "task"), TASKS, ids=IDS)
def test_a_network_that_kept_half_is_better_even_on_few_samples(word: str, task: Task) -> None:
    for seed in range(10):
        for count in (8, 20, 40):
            targets, said = truth(word, count, seed)
            found = compared(task, noisy(said, 0.2), (blind(word, said) + said) / 2, targets)
            assert found["verdict"] != "no better", (seed, count, found)


@pytest.mark.parametrize(("word", "task"), TASKS, ids=IDS)
def test_few_samples_condemn_no_network(word: str, task: Task) -> None:
    targets, said = truth(word, 12)
    assert compared(task, noisy(said, 0.1), blind(word, said), targets)["verdict"] in ("not told", "dense no better")


@pytest.mark.parametrize(("word", "task"), TASKS, ids=IDS)
def test_a_dense_network_that_knows_nothing_is_said_to(word: str, task: Task) -> None:
    targets, said = truth(word, LARGE)
    found = compared(task, noisy(blind(word, said), 0.01), blind(word, said), targets)
    assert found["verdict"] == "dense no better"


def test_the_share_that_is_kept_against_the_formula() -> None:
    targets, said = truth("reconstruct", LARGE)
    dense, slim = noisy(said, 0.3), noisy(said, 0.8)
    found = compared("reconstruct", dense, slim, targets)
    errors = [float((one.double() - targets.double()).square().mean()) for one in (dense, slim)]
    constant = float((targets.double() - targets.double().mean(0)).square().mean())
    assert found["metric"]["loss"] == pytest.approx(constant)
    assert found["kept"]["loss"] == pytest.approx((constant - errors[1]) / (constant - errors[0]))


def test_a_detector_has_to_rank_anomalies_as_well_as_to_reconstruct() -> None:
    targets, said = truth("anomaly", LARGE)
    flags = targets["anomaly"]
    alike = targets["input"] + 0.1  # every sample has the same error
    found = compared("anomaly", noisy(said, 0.3), alike, targets)
    assert (found["verdict"], found["metric"]["auroc"]) == ("no better", 0.5)
    assert found["kept"]["loss"] > 0.9 > 0.05 > found["kept"]["auroc"]
    mean = targets["input"][~flags].mean(0).expand(targets["input"].shape)
    found = compared("anomaly", noisy(said, 0.3), mean, targets)
    assert found["verdict"] == "no better", "the mean input has an AUROC above 0.5, as distances to it tell something"
    assert found["kept"]["loss"] == pytest.approx(0.0, abs=1e-3)


def test_a_class_that_is_frequent_is_no_merit() -> None:
    """90 % of one class: an accuracy of 90 % is what always answering it has."""
    rng = torch.Generator().manual_seed(0)
    labels = (torch.rand(4000, generator=rng) < 0.1).long()
    right = 4 * nn.functional.one_hot(labels, 2).float()
    always = torch.tensor([2.0, 0.0]).repeat(4000, 1)
    assert compared("classify", right, always, labels)["verdict"] == "no better"
    ranked = NamedTask("classify", ("auroc",))
    assert compared(ranked, right, noisy(always, 0.5) + right / 4, labels)["verdict"] == "better"


@pytest.mark.parametrize("word", ["multilabel", "classify"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_yes_to_everything_is_no_merit(word: Any, sign: float) -> None:
    """Of a rare label, always answering it has more F1 than never answering it."""
    rng = torch.Generator().manual_seed(0)
    rare = (torch.rand(2000, 2, generator=rng) < 0.2).float()
    labels, said = (rare, 8 * rare - 4) if word == "multilabel" else (rare[:, 0].long(), 8 * rare[:, :1] - 4)
    found = compared(NamedTask(word, rank_by="f1"), noisy(said, 1.0), sign * torch.ones_like(said), labels)
    share = float(rare[:, : said.shape[1]].mean())
    assert found["metric"]["f1"] == pytest.approx(2 * share / (1 + share), abs=0.01)
    assert found["verdict"] == "no better"


@pytest.mark.parametrize(
    ("task", "judged"),
    [
        ("classify", ["accuracy"]),
        ("language_model", ["loss"]),
        ("anomaly", ["auroc", "loss"]),
        (NamedTask("anomaly", rank_by="loss"), ["loss"]),
        (NamedTask("regress", rank_by="r2"), ["loss"]),
        (NamedTask("classify", rank_by="calibration_error"), ["loss"]),
        (NamedTask("classify", rank_by="auroc"), ["auroc"]),
        (NamedTask("multilabel", rank_by="recall"), ["f1"]),
        (OwnTask(absolute, {"hits": absolute}, rank_by="hits", better="larger"), ["hits"]),
    ],
)
def test_the_metric_that_ranks_judges(task: Task, judged: list[str]) -> None:
    assert [kind.name for kind in judged_by(task)] == judged


def test_a_function_that_takes_no_constant_output_is_left_alone() -> None:
    def picky(output: Tensor, target: Tensor) -> Tensor:
        if len(output) % 8:
            raise ValueError("whole batches only")
        return (output - target).abs().mean()

    targets, said = truth("regress", 128)
    found = compared(OwnTask(picky), noisy(said, 0.2), blind("regress", said), targets)
    assert found["verdict"] == "not told"
    assert "ValueError: whole batches only" in found["why"]


# --- the command ---

NET = """\
import torch
from torch import nn
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
"""
RECIPE = """\
name: lost
model: {factory: "lost_net:build"}
data: {npz: lost.npz, normalise: none}
task: classify
train: {epochs: 30, optimizer: adamw, lr: 1e-2}
stages:
  - {target: {nodes: "1"}, criterion: norms, sparsity: SPARSITY, removal: hard}
export: [safetensors]
"""


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[[float], list[str]]:
    """A network whose classes depend on the hidden layer: with 1 of 32 nodes and no retraining, it says one class."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    rng = np.random.default_rng(0)
    labels = np.arange(2400) % 4
    images = rng.integers(0, 60, (2400, 4, 4)).astype(np.uint8)
    images[np.arange(2400), labels] += 120  # a bright row tells the class
    np.savez("lost.npz", images=images, labels=labels)
    Path("lost_net.py").write_text(NET)

    def words(sparsity: float) -> list[str]:
        Path("lost.yaml").write_text(RECIPE.replace("SPARSITY", str(sparsity)))
        if not Path("model.pt").exists():
            run("train", "lost.yaml", "-o", "model.pt")
            state = torch.load("model.pt")
            state["3.bias"] += torch.tensor([9.0, 0, 0, 0])  # which the other weights make up for
            state["3.weight"][0] -= 9.0 / 32 / 4
            state["1.bias"] += 4.0
            state["3.bias"] -= 4.0 * state["3.weight"].sum(1)
            torch.save(state, "model.pt")
        return ["apply", "lost.yaml", "model.pt", "-o", "out", "--force"]

    return words


def test_a_run_that_ends_in_a_constant_output_fails(run: Run, lost: Callable[[float], list[str]]) -> None:
    words = lost(0.96)
    result = run(*words, code=1)
    said = " ".join(result.stderr.split())
    assert "error: the slim network is no better than a constant output: its accuracy on the test samples is" in said
    assert "--set allow_constant=true accepts such a network" in said
    assert "next:" not in result.stdout
    results = json.loads(Path("out/results.json").read_text())
    assert results["constant"]["verdict"] == "no better"
    assert results["constant"]["output"] == "always answering the most frequent class"
    assert results["constant"]["metric"]["accuracy"] == pytest.approx(0.25, abs=0.01)
    assert "no better than a constant output" in Path("out/report.html").read_text()
    assert "no better than a constant output" in Path("out/MODEL_CARD.md").read_text()
    assert not list(Path().glob("*.partial")), "the run is complete: there is nothing to resume"


def test_it_can_be_allowed(run: Run, lost: Callable[[float], list[str]]) -> None:
    result = run(*lost(0.96), "--set", "allow_constant=true")
    assert "keeps nothing of the dense network's lead over it" in " ".join(result.stdout.split())
    assert json.loads(Path("out/results.json").read_text())["recipe"]["allow_constant"] is True


def test_json_is_printed_all_the_same(run: Run, lost: Callable[[float], list[str]]) -> None:
    result = run(*lost(0.96), "--json", code=1)
    assert json.loads(result.stdout)["constant"]["verdict"] == "no better"


def test_a_good_run_does_not_fail(run: Run, lost: Callable[[float], list[str]]) -> None:
    result = run(*lost(0.1))
    found = json.loads(Path("out/results.json").read_text())["constant"]
    assert found["verdict"] == "better"
    assert found["kept"]["accuracy"] > 0.5
    assert "a constant output (always answering the most frequent class) has loss" in " ".join(result.stdout.split())
