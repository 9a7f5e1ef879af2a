"""What the dense network is on the recipe's data, and whether that is what its owner knows."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import Result

from compress.data import sources
from compress.data.dataset import Dataset
from compress.data.image_options import ImageOptions
from compress.recipe.loading import load_recipe
from compress.recipe.schema import Recipe
from compress.run import measuring
from compress.run.against_constant import Compared, constant_output
from compress.run.clock import Clock
from compress.run.measuring import ChanceWarning, judge, sample
from compress.run.setting import Setting, unwatched

Run = Callable[..., Result]
NET = """\
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
"""
RECIPE = """\
name: mine
model: {factory: "told_net:build"}
data: {npz: told.npz, normalise: SCALE}
task: classify
stages: [{target: {weights: "1.weight"}, criterion: magnitude, sparsity: 0.25, removal: hard}]
export: []
"""


class Bright(nn.Module):
    """Knows the class of an image of one brightness, from 0 to 1 in quarters, as plain ToTensor gives it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -(images.flatten(1).mean(1, keepdim=True) - torch.tensor([0.0, 0.25, 0.5, 0.75])).abs()


def data(scale: Any, count: int = 600) -> Dataset:
    """Images of one brightness, and of four classes in turn; the first `count` of 3,600 to test on."""
    labels = np.arange(count) % 4
    images = np.broadcast_to((labels * 64).astype(np.uint8)[:, None, None], (count, 4, 4)).copy()
    np.savez("told.npz", images=images, labels=labels)
    return sources.from_npz("told.npz", "told.npz", options=ImageOptions(normalise=scale))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def setting(dataset: Any) -> Setting:
    return Setting(dataset, "classify", 10, torch.device("cpu"), 0, unwatched, Clock())


def recipe(**expect: Any) -> Recipe:
    Path("mine.yaml").write_text(RECIPE.replace("SCALE", "none"))
    changes = [f"expect={json.dumps(expect)}"] if expect else []
    return load_recipe("mine.yaml", changes)


def judged(dataset: Any, **expect: Any) -> None:
    judging(Bright(), recipe(**expect), dataset)


def judging(network: nn.Module, wanted: Recipe, dataset: Any) -> None:
    here = setting(dataset)
    beside = Compared("classify", constant_output(network, here))
    judge(wanted, network, here, sample(network, here, beside), beside)


def test_a_sample_is_measured_as_the_network_gets_it() -> None:
    found = sample(Bright(), setting(data("none")))
    assert (found.samples, found.metric["accuracy"]) == (600, 1.0)
    ((only,),) = (found.inputs,)
    assert (only["name"], only["min"], only["max"]) == ("input", 0.0, pytest.approx(192 / 255))


def test_no_more_than_some_batches_are_measured_and_they_are_drawn_at_random() -> None:
    labels = np.sort(np.arange(4000) % 4)  # the first 2,000 have two classes
    np.savez("sorted.npz", images=np.zeros((4000, 4, 4), np.uint8), labels=labels)
    found = sample(Bright(), setting(sources.from_npz("sorted.npz", "sorted.npz")))
    assert found.samples == 2000
    # Every image is black, which is the first class.
    assert found.metric["accuracy"] == pytest.approx(0.25, abs=0.05)


def test_the_random_state_is_left_as_it_was() -> None:
    dataset, before = data("none"), torch.get_rng_state()
    sample(Bright(), setting(dataset))
    assert torch.equal(torch.get_rng_state(), before), "a run with the check equals one without"


def test_the_error_of_a_loss_is_that_of_the_means_of_batches() -> None:
    """Against the formula, of losses computed one batch at a time."""
    dataset = data("none", count=1000)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    found = sample(network, setting(dataset))
    batches = dataset.batches("test", 250, "classify")(torch.Generator().manual_seed(0))
    with torch.no_grad():
        means = [float(nn.functional.cross_entropy(network(inputs).double(), labels)) for inputs, labels in batches]
    assert found.metric["loss"] == pytest.approx(np.mean(means))
    assert found.error == pytest.approx(np.std(means, ddof=1) / math.sqrt(4))


def test_what_its_owner_knows_holds() -> None:
    judged(data("none"), accuracy=1.0)
    judged(data("none"), accuracy=0.985)
    judged(data("none"), accuracy={"at_least": 0.9}, loss={"at_most": 2.0, "at_least": 1.0})


def test_a_network_on_another_scale_is_refused_with_the_way_out() -> None:
    """The owner of a network that was trained on plain ToTensor knows 100 %, and the recipe standardises."""
    with pytest.raises(Exception, match="expect") as error:
        judged(data("dataset"), accuracy=1.0)
    text = str(error.value)
    assert error.value.exit_code == 2  # type: ignore[attr-defined]
    low, mean = -float(data("dataset").mean / data("dataset").std), float(data("dataset").mean)
    assert "the dense network's accuracy is 0.75 on 600 test samples, and the recipe expects 1 ± 0.02" in text
    assert f"It gets input from {low:.4g} to " in text
    assert f"(data.normalise: dataset; pixels in [0, 1], less {mean:.4g}, divided by " in text
    assert "Its accuracy with other values of `data.normalise`: none 1, {mean: [0.5], std: [0.5]} 0.25." in text


def test_all_metrics_that_differ_are_told() -> None:
    with pytest.raises(Exception, match=r"accuracy is 1 .* expects 0.5 .*; .*'s loss is .* at most 0.1"):
        judged(data("none"), accuracy=0.5, loss={"at_most": 0.1})


@pytest.mark.parametrize(("expected", "holds"), [(0.47, True), (0.33, True), (0.50, False), (0.3, False)])
def test_chance_is_no_difference(expected: float, holds: bool) -> None:
    """400 samples tell an accuracy of 0.4 to about 0.025; three times that is allowed."""
    found = measuring.Sample({"loss": 1.0, "accuracy": 0.4}, 400, [], 0.0)
    assert measuring._holds("accuracy", expected, found) is holds


def test_a_metric_that_there_is_not() -> None:
    with pytest.raises(Exception, match=r"no metric 'acuracy'; it has loss, accuracy; did you mean accuracy\?"):
        judged(data("none"), acuracy=0.9)
    with pytest.raises(Exception, match=r"no metric 'psnr'; it has loss, accuracy"):
        judged(data("none"), psnr=0.9)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("expect={}", "expect: found an empty mapping"),
        ("expect={accuracy: good}", "expect.accuracy: found 'good'; needs a number"),
        ("expect={accuracy: {at_least: a}}", "expect.accuracy.at_least: found 'a'; needs a number"),
        ("expect={accuracy: {}}", "expect.accuracy.at_most: give at_least, at_most or both"),
        ("expect={accuracy: {atleast: 1}}", "expect.accuracy.atleast: unknown key; did you mean at_least?"),
        ("expect={9: 1}", "needs"),
        ("expect=0.5", "expect: found 0.5; needs"),
    ],
)
def test_what_is_no_expectation(value: str, message: str) -> None:
    recipe()
    with pytest.raises(Exception, match="expect") as error:
        load_recipe("mine.yaml", [value])
    assert message in str(error.value)


def test_a_network_at_chance_level_is_warned_of() -> None:
    dataset = data("none")
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    nn.init.zeros_(network[1].weight)
    said = r"accuracy is 25\.00 % on 600 test samples, and that of always answering .* class is 25\.00 %"
    with pytest.warns(ChanceWarning, match=said):
        judging(network, recipe(), dataset)
    judged(dataset)  # a good one is not


# --- the commands ---


@pytest.fixture
def brought() -> tuple[str, str]:
    """The recipe and the weights of a linear network that was trained on plain pixels."""
    Path("told_net.py").write_text(NET)
    Path("mine.yaml").write_text(RECIPE.replace("SCALE", "dataset"))
    dataset = data("none")
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():  # -(x - c)^2 without the part that all classes share
        centres = torch.arange(4) * 64 / 255
        network[1].weight.copy_((2 * centres / 16)[:, None].expand(4, 16))
        network[1].bias.copy_(-(centres**2))
    assert sample(network, setting(dataset)).metric["accuracy"] == 1
    torch.save(network.state_dict(), "told.pt")
    return "mine.yaml", "told.pt"


def test_plan_says_what_the_network_is(run: Run, brought: tuple[str, str]) -> None:
    found = run("plan", *brought)
    assert "the network now: loss " in found.stdout
    assert "of 100 test samples; it gets input from -1.3" in found.stdout.replace("\n", " ")
    document = json.loads(run("plan", *brought, "--json", "--set", "data.normalise=none").stdout)
    assert document["dense"]["metric"]["accuracy"] == 1.0
    assert (document["dense"]["samples"], document["dense"]["of"]) == (100, 100)
    assert document["dense"]["preparation"]["normalise"] == "none"
    assert document["dense"]["inputs"][0]["max"] == pytest.approx(192 / 255)
    assert "dense" not in json.loads(run("plan", brought[0], "--json").stdout), "an untrained one is not measured"


@pytest.mark.parametrize("command", ["plan", "apply", "search", "sensitivity", "compare"])
def test_a_run_stops_before_anything_is_pruned(run: Run, brought: tuple[str, str], command: str) -> None:
    more = {
        "apply": ["-o", "out"],
        "search": ["--max-drop", "1", "-o", "out"],
        "compare": ["--removal", "hard"],
    }
    result = run(command, *brought, "--expect", "accuracy=1.0", *more.get(command, []), code=2)
    text = result.stderr.replace("\n", " ")
    assert "and the recipe expects 1 ± 0.02" in text
    assert "none 1" in text
    assert not Path("out").exists()


def test_a_run_goes_on_where_it_is_known(run: Run, brought: tuple[str, str]) -> None:
    right = ("--set", "data.normalise=none", "--expect", "accuracy=1.0")
    results = json.loads(run("apply", *brought, "-o", "out", "--json", *right).stdout)
    assert results["models"]["dense"]["metric"]["accuracy"] == 1.0
    assert results["recipe"]["expect"] == {"accuracy": 1.0}


def test_apply_warns_of_chance(run: Run, brought: tuple[str, str]) -> None:
    torch.save({name: torch.zeros_like(one) for name, one in torch.load("told.pt").items()}, "zero.pt")
    result = run("plan", brought[0], "zero.pt", code=0)
    assert "that of always answering the most frequent class is" in result.stderr.replace("\n", " ")
