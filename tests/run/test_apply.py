"""`compress apply` and `compress train`, whole, on a network and images that are small."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from torch import Tensor, nn
from typer.testing import Result

import compress
from compress.data.sources import from_npz
from compress.files.checkpoint import load_weights, read_weights
from compress.models import autoencoder
from compress.recipe.loading import load_recipe
from compress.run.setting import Moment
from compress.run_warnings import text_of
from compress.train.metrics import evaluate

Run = Callable[..., Result]

SCHEMA = Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "docs" / "results.schema.json").read_text(encoding="utf-8"))
)
FORMATS = [
    "MODEL_CARD.md",
    "checkpoint",
    "recipe.yaml",
    "report.html",
    "results.json",
    "slim.onnx",
    "slim.pt2",
    "slim.safetensors",
]


def build() -> nn.Module:
    return autoencoder(8, (1, 6, 6))


def masked(folder: Path) -> nn.Module:
    model = build()
    load_weights(model, read_weights(folder / "checkpoint" / "masked.safetensors"), "masked")
    return model.eval()


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """What must be the same in every run: all but times, the load, memory, and what is best by them."""
    timeless = json.loads(json.dumps(results))
    del timeless["timing"], timeless["best"]
    timeless.pop("load", None)
    for choice in timeless["choices"].values():
        choice.pop("latency_ms", None)
        choice.pop("peak_memory", None)
    for stage in timeless["stages"]:
        del stage["seconds"]
    for model in timeless["models"].values():
        model.pop("latency_ms", None)
    return timeless


@pytest.fixture
def apply(run: Run, recipe: Path, trained: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Path]]:
    """Run the tiny recipe with changes on the trained weights: (results, folder)."""

    def command(*changes: str, out: str = "out", model: Path = trained) -> tuple[dict[str, Any], Path]:
        options = [part for change in changes for part in ("--set", change)]
        result = run("apply", recipe, model, "-o", tmp_path / out, "--json", *options)
        results = json.loads(result.stdout)
        assert [error.message for error in SCHEMA.iter_errors(results)] == []
        return results, tmp_path / out

    return command


# --- what is left ---


def test_all_files_are_there_and_nothing_else(applied: Path) -> None:
    assert sorted(path.name for path in applied.glob("[!.]*")) == FORMATS
    assert [path.name for path in (applied / "checkpoint").iterdir()] == ["masked.safetensors"]
    assert {path.name for path in applied.parent.iterdir()} == {"out", "recipe.yaml", "terminal.txt"}
    assert applied.stat().st_mode & 0o777 == (applied.parent / "fresh").parent.stat().st_mode & 0o777 | 0o055


def test_results_are_as_their_schema_says(results: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(SCHEMA.schema)
    assert [error.message for error in SCHEMA.iter_errors(results)] == []
    recipes = json.loads((Path(__file__).parents[2] / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert [error.message for error in Draft202012Validator(recipes).iter_errors(results["recipe"])] == []


@pytest.mark.parametrize(
    "way",
    [
        ("stages", 0, "achieved"),
        ("stages", 0, "before_removal"),
        ("models", "masked"),
        ("models", "slim", "latency_ms"),
        ("models", "slim", "latency_ms", "1", "p99"),
        ("parity", "masked_vs_slim"),
        ("data", "sha256"),
        ("machine", "threads"),
        ("versions", "torch"),
        ("timing",),
    ],
)
def test_the_schema_misses_what_is_not_there(results: dict[str, Any], way: tuple[str | int, ...]) -> None:
    changed = json.loads(json.dumps(results))
    inner = changed
    for key in way[:-1]:
        inner = inner[key]
    del inner[way[-1]]
    assert not SCHEMA.is_valid(changed)
    assert not SCHEMA.is_valid({**results, "extra": 1})


def test_the_recipe_is_written_with_its_defaults_and_loads_as_what_was_run(
    applied: Path, results: dict[str, Any]
) -> None:
    written = load_recipe(applied / "recipe.yaml")
    assert written.model_dump(mode="json") == results["recipe"]
    assert written.export == ("onnx", "safetensors", "pt2")


def test_the_figures_are_those_of_the_networks(
    applied: Path, results: dict[str, Any], npz: Path, trained: Path
) -> None:
    dense = build()
    dense.load_state_dict(torch.load(trained, weights_only=True))
    slim = compress.load(applied / "slim.safetensors", model=build)
    batches = from_npz(npz).batches("test", 20, "reconstruct")
    for name, model in (("dense", dense), ("masked", masked(applied)), ("slim", slim)):
        figures = results["models"][name]
        parameters = list(model.parameters())
        assert figures["params"] == sum(parameter.numel() for parameter in parameters)
        assert figures["nonzero"] == sum(int((parameter != 0).sum()) for parameter in parameters)
        assert figures["metric"] == pytest.approx(evaluate(model, batches, "reconstruct"), rel=1e-6)
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        assert figures["macs"] == sum(layer.weight.numel() for layer in linear)
    for kind in ("safetensors", "onnx"):
        assert results["models"]["slim"]["bytes"][kind] == (applied / f"slim.{kind}").stat().st_size
    assert results["models"]["dense"]["nonzero"] > results["models"]["masked"]["nonzero"]
    assert results["models"]["slim"]["params"] < results["models"]["masked"]["params"]
    assert slim.get_submodule("latent").weight.shape == (2, 128)


def test_every_file_computes_what_the_masked_network_does(applied: Path, results: dict[str, Any]) -> None:
    inputs = torch.randn(7, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = masked(applied)(inputs)
        outputs = {
            "safetensors": compress.load(applied / "slim.safetensors", model=build)(inputs),
            "pt2": torch.export.load(applied / "slim.pt2").module()(inputs),
        }
    session = onnxruntime.InferenceSession(applied / "slim.onnx")
    for size in (1, 7):
        (output,) = session.run(["output"], {"input": inputs[:size].numpy()})
        assert np.abs(output - expected[:size].numpy()).max() <= 1e-5
    for name, found in outputs.items():
        assert (found - expected).abs().max() <= 1e-5, name
    assert max(results["parity"][key] for key in ("masked_vs_slim", "slim_vs_onnx", "slim_vs_pt2")) <= 1e-5
    assert results["parity"]["fresh_process"].keys() == {
        *("slim.onnx", "slim.pt2", "slim.safetensors", "masked.safetensors")
    }
    assert max(results["parity"]["fresh_process"].values()) <= 1e-5
    assert json.loads(session.get_modelmeta().custom_metadata_map["recipe"]) == results["recipe"]


def test_the_asked_share_is_gone_exactly(applied: Path, results: dict[str, Any]) -> None:
    (stage,) = results["stages"]
    assert (stage["asked"], stage["achieved"], stage["pruned"], stage["of"]) == (0.75, 0.75, 6, 8)
    model = masked(applied)
    latent, behind = model.get_submodule("latent"), model.get_submodule("decoder.1")
    gone = (latent.weight == 0).all(1)
    assert int(gone.sum()) == 6
    assert bool((latent.bias[gone] == 0).all())
    assert torch.equal((behind.weight == 0).all(0), gone)


def test_the_curve_is_that_of_the_training(results: dict[str, Any]) -> None:
    (stage,) = results["stages"]
    curve, epochs = stage["curve"], stage["epoch_losses"]
    assert curve["span"] == 1
    assert len(curve["loss"]) == stage["steps"] == 10
    for number, mean in enumerate(epochs):
        assert sum(curve["loss"][5 * number : 5 * number + 5]) / 5 == pytest.approx(mean, rel=1e-4)
    assert curve["share"] == [1.0] * 10
    assert curve["factor"][:5] == pytest.approx([1e-6 ** (step / 5) for step in range(1, 5)] + [0.0], rel=1e-4)
    assert curve["factor"][5:] == [0.0] * 5


def test_the_scores_are_told_apart_by_their_threshold(results: dict[str, Any]) -> None:
    ((group,),) = [stage["scores"] for stage in results["stages"]]
    assert group["of"] == "latent"
    assert (sum(group["gone"]), sum(group["kept"]), group["earlier"]) == (6, 2, 0)
    assert group["from"] <= group["threshold"] <= group["to"]
    highest = max(index for index, count in enumerate(group["gone"]) if count)
    assert highest <= min(index for index, count in enumerate(group["kept"]) if count)


def test_the_tensors_are_those_of_the_files(applied: Path, results: dict[str, Any]) -> None:
    before, after = dict(masked(applied).named_parameters()), read_weights(applied / "slim.safetensors").only("a file")
    assert [tensor["name"] for tensor in results["tensors"]] == [name for name, _ in build().named_parameters()]
    for tensor in results["tensors"]:
        parameter = before[tensor["name"]]
        assert tensor["shape"] == list(parameter.shape)
        assert tensor["zeros"] == int((parameter == 0).sum())
        assert tensor["slim"] == list(after[tensor["name"]].shape)


def test_the_images_are_test_images_and_what_the_networks_make_of_them(
    applied: Path, results: dict[str, Any], npz: Path
) -> None:
    slim = compress.load(applied / "slim.safetensors", model=build)
    inputs, targets = next(iter(from_npz(npz).batches("test", 20, "reconstruct")()))
    with torch.no_grad():
        outputs = slim(inputs)
    assert [image["number"] for image in results["images"]] == [0, 2, 4, 6, 8, 10, 12, 14]
    for image in results["images"]:
        for key, wanted in (("input", targets), ("slim", outputs)):
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image[key])))) / 255
            assert np.abs(pixels - wanted[image["number"], 0].clamp(0, 1).numpy()).max() <= 0.51 / 255


def test_results_stay_small(applied: Path) -> None:
    assert (applied / "results.json").stat().st_size < 200_000


def test_timing_adds_up(results: dict[str, Any]) -> None:
    timing = results["timing"]
    assert sum(timing["phases"].values()) == pytest.approx(timing["total"], abs=0.01)
    assert timing["training_share"] == pytest.approx(timing["phases"]["training"] / timing["total"], rel=1e-3)
    assert results["stages"][0]["seconds"] <= timing["phases"]["training"]


# --- the same run again ---


def test_the_same_run_gives_the_same_figures_and_the_same_bytes(
    apply: Callable[..., tuple[dict[str, Any], Path]], applied: Path, results: dict[str, Any]
) -> None:
    changes = ("export=[onnx, safetensors, pt2]", "benchmark.batch_sizes=[1, 4]")
    torch.manual_seed(99)  # nothing depends on what the process has done before
    again, out = apply(*changes)
    assert figures(again) == figures(results)
    for name in ("slim.safetensors", "slim.onnx", "recipe.yaml", "checkpoint/masked.safetensors"):
        assert (out / name).read_bytes() == (applied / name).read_bytes(), name
    other, out = apply("seed=1", out="other")
    assert other["seed"] == 1
    assert other["stages"][0]["epoch_losses"] != again["stages"][0]["epoch_losses"]


def test_training_is_the_same_every_time(run: Run, recipe: Path, trained: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    done = json.loads(run("train", recipe, "-o", tmp_path / "again.pt", "--json").stdout)
    assert (tmp_path / "again.pt").read_bytes() == trained.read_bytes()
    assert done["steps"] == 20
    assert len(done["epoch_losses"]) == 4
    assert done["epoch_losses"] == sorted(done["epoch_losses"], reverse=True)
    run("train", recipe, "-o", tmp_path / "again.pt", "--force", "--seed", "1")
    assert (tmp_path / "again.pt").read_bytes() != trained.read_bytes()


# --- stages ---

HARD = "stages.0.removal=hard"


@pytest.mark.extended
def test_the_three_removals(apply: Callable[..., tuple[dict[str, Any], Path]]) -> None:
    bare, _ = apply(HARD, "stages.0.retrain=null", "stages.0.compensate=false", out="bare")
    (stage,) = bare["stages"]
    assert (stage["steps"], stage["removal_steps"], stage["epoch_losses"]) == (0, 0, [])
    assert stage["before_removal"] == bare["models"]["dense"]["metric"]
    assert stage["after_removal"]["loss"] > stage["before_removal"]["loss"]
    retrained, _ = apply(HARD, out="retrained")
    (again,) = retrained["stages"]
    assert (again["steps"], again["removal_steps"]) == (10, 0)
    assert again["before_removal"] == stage["before_removal"]
    assert again["after_removal"]["loss"] < stage["after_removal"]["loss"]
    soft, _ = apply("stages.0.removal={kind: soft, decay: linear, over: 7 steps}", out="soft")
    (slow,) = soft["stages"]
    assert (slow["steps"], slow["removal_steps"]) == (10, 7)
    assert slow["before_removal"] != slow["after_removal"]
    assert soft["models"]["masked"]["metric"] == slow["after_removal"]


@pytest.mark.parametrize("trainable", ["adjacent", "[decoder.9.*, latent.bias]"])
def test_what_is_not_trainable_stays_as_it_was_to_the_last_bit(
    apply: Callable[..., tuple[dict[str, Any], Path]], weights: dict[str, Tensor], trainable: str
) -> None:
    _, out = apply(f"stages.0.retrain.trainable={trainable}")
    after = masked(out).state_dict()
    free = {
        "adjacent": {"latent.weight", "latent.bias", "decoder.1.weight", "decoder.1.bias"},
        "[decoder.9.*, latent.bias]": {"decoder.9.weight", "decoder.9.bias", "latent.bias"},
    }[trainable]
    for name, before in weights.items():
        kept = after[name] != 0 if name in ("latent.weight", "latent.bias", "decoder.1.weight") else ...
        assert torch.equal(after[name][kept], before[kept]) == (name not in free), name


def two_stages(recipe: Path, first: str, second: str) -> None:
    """Replace the stages of the recipe's file by two that are written in flow style."""
    lines = recipe.read_text(encoding="utf-8").splitlines(keepends=True)
    start = lines.index("stages:\n") + 1
    recipe.write_text("".join([*lines[:start], f"  - {first}\n", f"  - {second}\n", "export: [safetensors]\n"]))


NODES = "{target: {nodes: latent}, criterion: magnitude, sparsity: 0.5, removal: hard"
WEIGHTS = "{target: {weights: [latent.weight, decoder.1.weight]}, criterion: magnitude, sparsity: 0.75, removal: "
RETRAIN = "retrain: {epochs: 1, optimizer: adam, lr: 1e-2}}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{NODES}, {RETRAIN}", f"{WEIGHTS}{{kind: soft}}, {RETRAIN}"),
        (f"{WEIGHTS}{{kind: soft}}, {RETRAIN}", f"{NODES}, {RETRAIN}"),
    ],
    ids=["nodes, weights", "weights, nodes"],
)
def test_stages_do_not_compound_and_give_nothing_back(
    apply: Callable[..., tuple[dict[str, Any], Path]], recipe: Path, first: str, second: str
) -> None:
    two_stages(recipe, first, second)
    results, out = apply()
    stages = {stage["kind"]: stage for stage in results["stages"]}
    assert (stages["nodes"]["achieved"], stages["nodes"]["pruned"]) == (0.5, 4)
    assert (stages["weights"]["achieved"], stages["weights"]["pruned"]) == (0.75, round(0.75 * 2 * 8 * 128))
    model = masked(out)
    latent, behind = model.get_submodule("latent").weight, model.get_submodule("decoder.1").weight
    zeros = int((latent == 0).sum() + (behind == 0).sum())
    if results["stages"][0]["kind"] == "nodes":
        # The nodes' entries are 50 % of the target, so they count as two thirds of the 75 %.
        assert zeros == stages["weights"]["pruned"]
    else:
        assert stages["weights"]["pruned"] <= zeros < stages["weights"]["pruned"] + 2 * 4 * 128
    assert int((latent == 0).all(1).sum()) == 4
    assert compress.load(out / "slim.safetensors", model=build).get_submodule("latent").weight.shape[0] == 4


def test_a_later_stage_that_asks_for_less_takes_nothing_more(
    apply: Callable[..., tuple[dict[str, Any], Path]], recipe: Path
) -> None:
    two_stages(recipe, NODES + "}", NODES.replace("0.5", "0.25") + "}")
    results, out = apply()
    assert [stage["achieved"] for stage in results["stages"]] == [0.5, 0.5]  # what is gone, not what was asked
    assert int((masked(out).get_submodule("latent").weight == 0).all(1).sum()) == 4


def test_what_was_taken_first_counts_in_every_later_stage(
    apply: Callable[..., tuple[dict[str, Any], Path]], recipe: Path
) -> None:
    """Chance ranks dead nodes like any others, unless the stages remember which are dead."""
    chance = NODES.replace("magnitude", "random")
    two_stages(recipe, chance + "}", chance.replace("0.5", "0.25") + "}\n  - " + chance.replace("0.5", "0.625") + "}")
    results, out = apply()
    assert [stage["achieved"] for stage in results["stages"]] == [0.5, 0.5, 0.625]
    assert int((masked(out).get_submodule("latent").weight == 0).all(1).sum()) == 5


def test_weights_alone_leave_the_shapes(apply: Callable[..., tuple[dict[str, Any], Path]]) -> None:
    results, out = apply(
        "stages.0={target: {weights: '*', bias: true}, criterion: random, sparsity: 0.3, scope: layer, removal: hard}"
    )
    (stage,) = results["stages"]
    model = masked(out)
    for parameter in model.parameters():
        assert int((parameter == 0).sum()) >= round(0.3 * parameter.numel())
    assert stage["pruned"] == sum(round(0.3 * parameter.numel()) for parameter in model.parameters())
    assert results["models"]["slim"]["params"] == results["models"]["dense"]["params"]


def test_warnings_are_in_the_results_and_on_the_terminal(run: Run, recipe: Path, trained: Path, tmp_path: Path) -> None:
    target = "{target: {weights: [latent.weight, encoder.*]}, criterion: magnitude, sparsity: 0.9999, removal: hard}"
    result = run("apply", recipe, trained, "-o", tmp_path / "out", "--json", "--set", f"stages.0={target}")
    (text, *_) = [text_of(one) for one in json.loads(result.stdout)["warnings"] if one["kind"] == "layer_loss"]
    assert "would keep" in text
    assert "min_keep" in text
    assert f"warning: {text}" in result.stderr


# --- ended by hand ---


@pytest.mark.parametrize("command", ["apply", "train"])
def test_ctrl_c_ends_cleanly(
    run: Run,
    recipe: Path,
    trained: Path,
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Callable[[Path], AbstractContextManager[None]],
) -> None:
    steps = []

    @contextmanager
    def training(display: object, total: int, epoch: int) -> Iterator[Callable[[Moment], None]]:
        def on_step(now: Moment) -> None:
            steps.append(now.step)
            if now.step == 3:
                raise KeyboardInterrupt

        yield on_step

    monkeypatch.setattr("compress.report.progress.Display.training", training)
    arguments = [recipe, trained] if command == "apply" else [recipe]
    with unchanged(tmp_path):
        result = run(command, *arguments, "-o", tmp_path / "deep" / "out.pt", "--quiet", code=130)
    assert steps == [1, 2, 3]
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert said == ["interrupted: no results were written"]


# --- the user's networks and data ---

MINE = """\
import torch
from torch.utils.data import DataLoader, TensorDataset

print("this module is talkative")

def build(hidden):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 3)
    )

def loaders():
    labels = torch.arange(60) % 3
    images = torch.nn.functional.one_hot(labels, 12).float()[:, None].reshape(60, 1, 3, 4)
    data = TensorDataset(images + 0.1 * torch.randn(images.shape), labels)
    return DataLoader(data, batch_size=10, shuffle=True), DataLoader(data, batch_size=30)

def lists():
    batches = [(torch.zeros(5, 1, 3, 4), torch.arange(5) % 3)]
    return batches, batches
"""

OWN = """\
name: own
model: {factory: "MODULE:build", args: {hidden: 16}}
data: {factory: "MODULE:loaders"}
task: classify
train: {epochs: 5, optimizer: adam, lr: 1e-2}
stages:
  - target: {nodes: "1"}
    criterion: {kind: skeletonization, error: linear, reduce: abs}
    sparsity: 0.5
    removal: {kind: soft, decay: cosine}
    retrain: {epochs: 1, optimizer: sgd, momentum: 0.9, lr: 1e-2, lr_schedule: cosine}
export: [safetensors]
"""


def test_a_network_and_data_of_ones_own_from_the_working_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "mine_of_running.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "own.yaml").write_text(OWN.replace("MODULE", "mine_of_running"), encoding="utf-8")
    result = run("train", "own.yaml", "-o", "model.safetensors", "--json")
    done = json.loads(result.stdout)
    assert "talkative" in result.stderr
    assert done["metric"]["accuracy"] == 1.0
    assert done["data"]["sha256"] is None
    assert done["data"]["train"] == 60
    results = json.loads(run("apply", "own.yaml", "model.safetensors", "--json").stdout)
    assert [error.message for error in SCHEMA.iter_errors(results)] == []
    assert results["stages"][0]["achieved"] == 0.5
    assert results["models"]["slim"]["metric"]["accuracy"] == 1.0
    assert results["models"]["slim"]["params"] == 12 * 8 + 8 + 8 * 3 + 3
    assert sorted(path.name for path in Path("own").glob("[!.]*")) == [
        name for name in FORMATS if name not in ("slim.onnx", "slim.pt2")
    ], "the folder is named like the recipe"
    # The file knows its recipe, the recipe its network, and loaders tell the shape of an input only where asked.
    lists = "data={factory: 'mine_of_running:lists'}"
    bare = json.loads(run("apply", "own.yaml", "model.safetensors", "--json", "--set", lists, "-o", "l").stdout)
    assert [error.message for error in SCHEMA.iter_errors(bare)] == []
    assert "train" not in bare["data"]
    assert "training and" not in Path("l/MODEL_CARD.md").read_text(encoding="utf-8")


DRIFTING = """

class Shifted(torch.nn.Sequential):
    shift = 0.0

    def forward(self, x):
        return super().forward(x) + self.shift

COUNT = [0.0]

def drifting(hidden):
    COUNT[0] += 0.1
    network = Shifted(*build(hidden))
    network.shift = COUNT[0]
    return network
"""


def test_a_file_that_a_stranger_cannot_use_fails_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only parameters and buffers are in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "drifting_mine.py").write_text(MINE + DRIFTING, encoding="utf-8")
    text = OWN.replace("MODULE", "drifting_mine").replace(":build", ":drifting")
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    run("train", "own.yaml", "-o", "model.safetensors")
    result = run("apply", "own.yaml", "model.safetensors", "-o", "out", code=1)
    assert "slim.safetensors, read back in a fresh process, computes something else" in result.stderr
    assert "outside of its parameters and buffers" in result.stderr
    assert not Path("out").exists()


@pytest.mark.extended
def test_a_folder_of_images(run: Run, recipe: Path, tmp_path: Path, trained: Path, npz: Path) -> None:
    with np.load(npz) as arrays:
        for number, (image, label) in enumerate(zip(arrays["images"], arrays["labels"], strict=True)):
            folder = tmp_path / "images" / ("train" if number < 100 else "test") / f"class {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:03}.png")
    changes = ("--set", f"data={{folder: {tmp_path / 'images'}, batch_size: 20}}")
    results = json.loads(run("apply", recipe, trained, "-o", tmp_path / "out", "--json", *changes).stdout)
    assert [error.message for error in SCHEMA.iter_errors(results)] == []
    assert (results["data"]["name"], results["data"]["train"], results["data"]["test"]) == ("images", 100, 20)
    assert "note" not in results["data"]
    # The same test images, whatever they are read from.
    from_file = json.loads(run("apply", recipe, trained, "-o", tmp_path / "file", "--json").stdout)
    assert results["models"]["dense"]["metric"]["loss"] == pytest.approx(
        from_file["models"]["dense"]["metric"]["loss"], rel=1e-6
    )
