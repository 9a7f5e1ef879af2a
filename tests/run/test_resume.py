"""Runs that are killed and gone on with come to the same bits as those that are not."""

import json
import os
import resource
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import Result

from compress import export
from compress.errors import DivergedError
from compress.files.marked import MARK, Mark
from compress.files.marked import make as make_marked
from compress.recipe.schema import Recipe
from compress.run import apply, curve, journal
from compress.run.checkpoints import Checkpoints
from compress.run.clock import Clock
from compress.run.interruption import Stop
from compress.run.journal import Journal
from compress.run.output import added, begin
from compress.run.setting import Moment, unwatched

# Many of these recipes take weights here and there, which leaves the network as large as it was.
pytestmark = pytest.mark.filterwarnings("ignore::compress.run_warnings.RunWarning")

Command = Callable[..., Result]


class Killed(BaseException):
    """Nobody catches it, as nobody survives SIGKILL."""


class Deadly(Checkpoints):
    """Kills the run once so many checkpoints are written."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder, lambda line: None)
        self.left = after

    def write(self, state: dict[str, Any], where: str) -> None:
        super().write(state, where)
        self.left -= 1
        if self.left == 0:
            raise Killed(where)


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SHARE", float("inf"))
    monkeypatch.setattr(curve, "POINTS", 4)  # so that a point of the curve is of several steps


def begun(out: Path) -> None:
    """The folder of a run in progress."""
    folder = out.with_name(f"{out.name}.partial")
    if not folder.exists():
        make_marked(folder, Mark("run", out.name))


class Run:
    """A recipe on weights: whole, or as far as some checkpoint."""

    def __init__(self, recipe: Recipe, source: Path, folder: Path) -> None:
        self.recipe, self.source, self.folder = recipe, source, folder

    def __call__(self, out: str, checkpoints: Checkpoints | None = None) -> dict[str, Any]:
        torch.manual_seed(len(out))  # chance is what the run makes it
        kept = Journal(checkpoints, Stop(), every=0.0, resume=True)
        setting = apply.prepare(self.recipe, Path("data"), "cpu", unwatched, Clock(), kept)
        return apply.apply(self.recipe, self.source, self.folder / out, setting)

    def killed(self, out: str, after: int) -> str:
        """Where the run was killed."""
        begun(self.folder / out)
        with pytest.raises(Killed) as caught:
            self(out, Deadly(self.folder / f"{out}.partial", after))
        assert not (self.folder / out).exists()
        return str(caught.value)

    def killed_again_and_again(self, out: str, after: int) -> tuple[dict[str, Any], int]:
        """The results, and how often it was killed."""
        begun(self.folder / out)
        for times in range(1000):
            try:
                return self(out, Deadly(self.folder / f"{out}.partial", after)), times
            except Killed:
                assert not (self.folder / out).exists()
        raise AssertionError("it never ends")

    def content(self, out: str) -> dict[str, bytes]:
        """Of all files but those that have times in them."""
        files = [path for path in (self.folder / out).rglob("*") if path.is_file()]
        timed = ("results.json", "report.html", "MODEL_CARD.md", MARK)
        return {str(path.relative_to(self.folder / out)): path.read_bytes() for path in files if path.name not in timed}


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(results))
    del found["timing"], found["best"]
    scratch = found.get("rivals", {}).get("scratch", {})
    for timed in [*found["stages"], *(scratch[length] for length in ("total", "retraining") if length in scratch)]:
        del timed["seconds"]
    for timed in [*found["models"].values(), *found["choices"].values()]:
        timed.pop("latency_ms", None)
        timed.pop("peak_memory", None)
    return found


@pytest.fixture
def make(npz: Path, trained: Path, tmp_path: Path) -> Callable[..., Run]:
    def run(*stages: dict[str, Any], **changes: Any) -> Run:
        recipe = {
            "name": "tiny",
            "model": {"name": "autoencoder", "latent": 8, "image": [1, 6, 6]},
            "data": {"npz": str(npz), "batch_size": 20},
            "task": "reconstruct",
            "stages": stages,
            "export": [],  # checkpoint/masked.safetensors is always there; converting takes longer than such a run
            **changes,
        }
        return Run(Recipe.model_validate(recipe), trained, tmp_path)

    return run


def stage(removal: Any = "soft", optimizer: str = "adamw", **changes: Any) -> dict[str, Any]:
    retrain = {"epochs": 3, "optimizer": optimizer, "lr": 1e-3, **changes.pop("retrain", {})}
    return {
        "target": {"weights": ["decoder.*", "latent.*"]},
        "criterion": "magnitude",
        "sparsity": 0.6,
        "removal": removal,
        "retrain": retrain,
        **changes,
    }


GRADUAL = {"kind": "gradual", "every": "2 steps"}
GRADUAL_SOFT = {"kind": "gradual_soft", "every": "2 steps", "cohort": "4 steps"}
STAGES = {
    "hard": stage("hard"),
    "soft": stage({"kind": "soft", "over": "2 epochs"}, "sgd", retrain={"momentum": 0.9, "lr_schedule": "cosine"}),
    "soft, linear decay": stage({"kind": "soft", "decay": "linear"}, "muon"),
    "soft, learning": stage({"kind": "soft", "over": "8 steps", "learns": True}, retrain={"lr_schedule": "linear"}),
    "gradual": stage(GRADUAL, "muon", scope="layer"),
    "gradual, regrowth": stage(GRADUAL, "adam", criterion="random", regrow={"share": 0.3, "samples": 40}),
    "gradual soft": stage(GRADUAL_SOFT, retrain={"warmup": 0.3}, criterion="taylor"),
    "gradual soft, regrowth": stage(GRADUAL_SOFT, "muon", scope="erk", regrow={"share": 0.3, "samples": 40}),
    "sfp": stage({"kind": "sfp", "every": "2 steps"}, "sgd"),
    "srfp": stage({"kind": "srfp", "every": "3 steps"}),
    "greg": stage("greg", "adam", retrain={"precision": "bfloat16"}),
    "layers": stage(GRADUAL, sparsity=None, layers={"latent.*": 0.25, "decoder.*": 0.75}),
    "distillation": stage(retrain={"distill": {"weight": 0.5}, "batch_size": 30}),
}


DEFAULT = ("hard", "gradual soft, regrowth")
"""In the default suite: the shortest, and the one with the most state."""


@pytest.mark.extended
@pytest.mark.parametrize(
    "name", [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.extended) for name in STAGES]
)
def test_killed_again_and_again_within_a_stage(make: Callable[..., Run], name: str) -> None:
    run = make(STAGES[name])
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=6)
    assert times >= 2
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")


@pytest.mark.extended
def test_augmented_batches_are_the_same_after_resuming(make: Callable[..., Run], npz: Path) -> None:
    data = {"npz": str(npz), "batch_size": 20, "augment": ["flip", "crop", "rotate"], "validation": 0.2}
    run = make(stage("hard"), data=data)
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=5)
    assert times >= 2
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")
    plain = make(stage("hard"), data={**data, "augment": None})("plain")
    assert plain["stages"][0]["after_removal"] != whole["stages"][0]["after_removal"]


NODES = {"target": {"nodes": "latent"}, "criterion": "skeletonization", "sparsity": 0.5}
TWO = (
    stage({"kind": "soft", "over": "1 epoch"}, target={"weights": ["encoder.*"]}, criterion="random"),
    stage({"kind": "soft", "over": "7 steps"}, **NODES, retrain={"trainable": "adjacent"}),
)
AXES = (
    stage("hard", **{**NODES, "criterion": "principal_axes"}, retrain={"epochs": 1}),
    stage(GRADUAL, **{**NODES, "criterion": "norms", "sparsity": 0.75}, retrain={"epochs": 2}),
)
SHAPED = (
    stage(
        GRADUAL,
        **{**NODES, "criterion": "principal_axes"},
        shape={"keep": {"label": 0.1}, "drop": {"maker": 0.2}},
        retrain={"epochs": 2, "distill": {"weight": 0.5}},
    ),
)
COMPENSATED = (stage("hard", **{**NODES, "criterion": "random"}, compensate=True, retrain={"epochs": 1}),)


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(TWO, marks=pytest.mark.extended, id="weights, nodes"),
        pytest.param(AXES, marks=pytest.mark.extended, id="axes, nodes"),
        pytest.param(COMPENSATED, id="compensated"),
    ],
)
def test_killed_again_and_again_in_several_stages(make: Callable[..., Run], stages: tuple[dict[str, Any], ...]) -> None:
    run = make(*stages, export=["safetensors"])
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=3)
    assert times >= 2
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")


def test_heads_and_adversaries_are_part_of_the_state(make: Callable[..., Run], npz: Path, tmp_path: Path) -> None:
    with np.load(npz) as arrays:
        np.savez(tmp_path / "a.npz", **arrays, maker=np.arange(len(arrays["labels"])) // 3 % 2)
    data = {"npz": str(tmp_path / "a.npz"), "attributes": ["maker"], "batch_size": 20}
    run = make(*SHAPED, data=data, export=["safetensors"])
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=3)
    assert times >= 2
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")
    plain = make(dict(SHAPED[0], shape=None), data=data, export=["safetensors"])("plain")
    assert plain["stages"][0]["after_removal"] != whole["stages"][0]["after_removal"]


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore::compress.run.rivals.RivalWarning")
def test_killed_again_and_again_while_the_same_shape_trains_from_scratch(make: Callable[..., Run]) -> None:
    train = {"epochs": 1, "optimizer": "adamw", "lr": 1e-3}
    pruned = stage("hard", **NODES, retrain={"epochs": 1, "distill": {"weight": 0.5}, "batch_size": 30})
    run = make(pruned, train=train, rivals={"scratch": True})
    whole = run("whole")
    assert {"total", "retraining"} == whole["rivals"]["scratch"].keys()
    resumed, times = run.killed_again_and_again("resumed", after=7)
    assert times >= 3
    assert timeless(resumed) == timeless(whole)


@pytest.mark.slow
def test_killed_at_every_checkpoint(make: Callable[..., Run]) -> None:
    """Each of them once, rather than one after the other."""
    run = make(*TWO)
    whole, places = run("whole"), []
    for after in range(1, 100):
        try:
            places.append(run.killed(f"out{after}", after))
        except pytest.fail.Exception:
            break
        resumed = run(f"out{after}", Deadly(run.folder / f"out{after}.partial", 0))
        assert timeless(resumed) == timeless(whole)
        assert run.content(f"out{after}") == run.content("whole")
    assert places[0] == "stage 1, step 1 of 15"
    assert places[15] == "the end of stage 1"
    assert places[-1] == "the end of stage 2"
    assert len(places) == 2 * (15 + 1)


MINE = """\
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

class Noisy(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, number):
        shift = random.random() + np.random.random() + torch.rand(()).item()
        return torch.full((6,), float(number % 3)) + shift, torch.tensor(number % 3)

def build():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

def loaders():
    random.seed(5)
    np.random.seed(5)
    test = TensorDataset(torch.arange(18.0).reshape(3, 6), torch.arange(3))
    return DataLoader(Noisy(), batch_size=10, shuffle=True), DataLoader(test, batch_size=3)
"""


@pytest.mark.extended
def test_whatever_draws_from_chance_goes_on_where_it_was(
    make: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, batch norm, and a user's loader that shuffles by torch's generator and augments by all three."""
    (tmp_path / "mine_by_chance.py").write_text(MINE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    run = make(
        stage(GRADUAL_SOFT, target={"weights": ["*"]}, criterion="random"),
        stage(GRADUAL, target={"nodes": "0"}, criterion="random", sparsity=0.25),
        model={"factory": "mine_by_chance:build"},
        data={"factory": "mine_by_chance:loaders"},
        task="classify",
    )
    import mine_by_chance  # type: ignore[import-not-found]

    torch.manual_seed(1)
    run.source = tmp_path / "mine.pt"
    torch.save(mine_by_chance.build().state_dict(), run.source)
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=3)
    assert times >= 6
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")


@pytest.mark.extended
def test_a_program_goes_on_as_a_network_does(make: Callable[..., Run], tmp_path: Path) -> None:
    """Its weights, and its traced constants, come from the file again."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(64, 3))
    export.pt2(network, tmp_path / "network.pt2", torch.zeros(2, 1, 6, 6))
    nodes = stage("soft", target={"nodes": "0"}, criterion="taylor", sparsity=0.5, retrain={"epochs": 1})
    run = make(stage(GRADUAL_SOFT, target={"weights": ["*"]}), nodes, model={"name": "program"}, task="classify")
    run.source = tmp_path / "network.pt2"
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=3)
    assert times >= 3
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")


@pytest.mark.extended
def test_a_folder_of_images_that_streams(make: Callable[..., Run], tmp_path: Path, pictures: Any) -> None:
    from PIL import Image

    found = pictures(60)
    for number, (image, label) in enumerate(zip(found["images"], found["labels"], strict=True)):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    data = {"folder": str(tmp_path / "images"), "batch_size": 10, "stream": True, "workers": 0}
    run = make(stage(retrain={"epochs": 2}), data=data)
    whole = run("whole")
    resumed, times = run.killed_again_and_again("resumed", after=3)
    assert times >= 2
    assert timeless(resumed) == timeless(whole)
    assert run.content("resumed") == run.content("whole")


def test_a_loss_that_becomes_nan_after_resuming_goes_back_as_far(make: Callable[..., Run]) -> None:
    run = make(stage(optimizer="sgd", retrain={"lr": 1e30, "weight_decay": 1.0}, sparsity=0.1))
    places = []
    for out in ("whole", "resumed"):
        if out == "resumed":
            run.killed(out, after=1)
        with pytest.raises(DivergedError, match=r"nan at step 3 of 15, .* had become not finite; .* step 0"):
            run(out, Deadly(run.folder / f"{out}.partial", 0) if out == "resumed" else None)
        places.append(run.folder / out / "checkpoint" / "last_good.safetensors")
    assert places[0].read_bytes() == places[1].read_bytes()


# --- from the command line ---


@contextmanager
def at_step(monkeypatch: pytest.MonkeyPatch, wanted: int, action: Callable[[], object]) -> Iterator[list[int]]:
    """Do something while a training takes its step number `wanted`; the steps that were shown."""
    steps: list[int] = []

    @contextmanager
    def training(display: object, total: int, epoch: int) -> Iterator[Callable[[Moment], None]]:
        def on_step(now: Moment) -> None:
            steps.append(now.step)
            if now.step == wanted:
                action()

        yield on_step

    with monkeypatch.context() as patched:
        patched.setattr("compress.report.progress.Display.training", training)
        yield steps


def comes_by(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def command_in(text: str) -> list[str]:
    """The one that goes on, as it was told."""
    return shlex.split(text.partition("to resume: ")[2].splitlines()[0])[1:]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["apply", "train"])
def test_a_signal_ends_the_step_and_says_how_to_go_on(
    run: Command,
    recipe: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    number: int,
    code: int,
) -> None:
    monkeypatch.setattr(journal, "SHARE", 0.02)
    before = signal.getsignal(number)
    inputs, out = ([recipe, trained], "out") if command == "apply" else ([recipe], "out.pt")
    options = ["--set", "export=[safetensors]", "--seed", "7"]
    run(command, *inputs, "-o", tmp_path / f"whole-{out}", *options)
    with at_step(monkeypatch, 7, comes_by(number)) as steps:
        result = run(command, *inputs, "-o", tmp_path / out, *options, code=code)
    assert steps == list(range(1, 8))
    assert signal.getsignal(number) is before
    assert result.stdout == ""
    assert result.stderr.splitlines()[-2] == "interrupted: no results were written"
    assert not (tmp_path / out).exists()
    again = command_in(result.stderr)
    with at_step(monkeypatch, 0, lambda: None) as steps:
        result = run(*again)
    assert steps[0] == 8
    assert "resuming from " in result.stderr
    assert ", step 7 of " in result.stderr
    found, whole = tmp_path / out, tmp_path / f"whole-{out}"
    assert not found.with_name(f"{out}.partial").exists()
    if command == "train":
        assert found.read_bytes() == whole.read_bytes()
        return
    documents = [json.loads((folder / "results.json").read_text()) for folder in (found, whole)]
    assert timeless(documents[0]) == timeless(documents[1])
    assert (found / "slim.safetensors").read_bytes() == (whole / "slim.safetensors").read_bytes()


def test_a_second_signal_ends_it_at_once(
    run: Command, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        comes_by(signal.SIGINT)()
        time.sleep(1.1)  # signals within a second count as one
        comes_by(signal.SIGINT)()
        raise AssertionError("the second one is not waited for")

    with at_step(monkeypatch, 4, twice):
        result = run("apply", recipe, trained, "-o", tmp_path / "out", "--checkpoint-every", 1000, code=130)
    assert result.stderr.splitlines()[-1] == "interrupted: no results were written"
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml"}


def test_outside_of_a_training_it_ends_at_once(
    run: Command, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = apply._slim

    def slim(*arguments: Any) -> Any:
        comes_by(signal.SIGTERM)()
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(apply, "_slim", slim)
        result = run("apply", recipe, trained, "-o", tmp_path / "out", code=143)
    assert "the state at the end of stage 1 is kept in " in result.stderr
    with at_step(monkeypatch, 0, lambda: None) as steps:
        result = run(*command_in(result.stderr), "--quiet")
    assert steps == [], "nothing is trained again"
    assert [line for line in result.stderr.splitlines() if not line.startswith("warning: ")] == []


@pytest.fixture
def interrupted(
    run: Command, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path, str, Path]:
    """The arguments of a run that was interrupted at its fifth step."""
    with at_step(monkeypatch, 5, comes_by(signal.SIGTERM)):
        run("apply", recipe, trained, "-o", tmp_path / "out", code=143)
    return recipe, trained, "-o", tmp_path / "out"


@pytest.mark.extended
def test_an_interrupted_run_is_not_thrown_away(
    run: Command,
    interrupted: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Callable[[Path], AbstractContextManager[None]],
) -> None:
    out = tmp_path / "out"
    with unchanged(tmp_path):
        result = run("apply", *interrupted, code=2)
        assert f"{out}.partial has the checkpoint of an interrupted run, at stage 1, step 5 of 10" in result.stderr
        assert command_in(result.stderr.replace("; to start over: --force", ""))[-1] == "--resume"
        result = run("apply", *interrupted, "--resume", "--seed", 3, code=2)
        assert "belongs to another run: recipe.seed was 0 and is 3" in result.stderr
        assert "to resume: " not in result.stderr
    with at_step(monkeypatch, 0, lambda: None) as steps:
        run("apply", *interrupted, "--force")
    assert steps == list(range(1, 11))
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "out"}


@pytest.mark.extended
def test_other_files_may_be_asked_for(run: Command, interrupted: tuple[Any, ...], tmp_path: Path) -> None:
    run("apply", *interrupted, "--resume", "--set", "export=[safetensors]")
    assert (tmp_path / "out" / "slim.safetensors").exists()


def test_other_weights_are_another_run(
    run: Command, interrupted: tuple[Any, ...], tmp_path: Path, weights: dict[str, Any]
) -> None:
    weights["latent.0.bias" if "latent.0.bias" in weights else "latent.bias"] += 1
    torch.save(weights, tmp_path / "other.pt")
    recipe, _, *rest = interrupted
    result = run("apply", recipe, tmp_path / "other.pt", *rest, "--resume", code=2)
    assert "belongs to another run: weights was " in result.stderr


def test_where_there_is_nothing_to_go_on_from_it_is_the_beginning(
    run: Command, recipe: Path, trained: Path, tmp_path: Path
) -> None:
    result = run("apply", recipe, trained, "-o", tmp_path / "out", "--resume")
    assert f"nothing to resume in {tmp_path / 'out'}.partial: starting from the beginning" in result.stderr
    assert (tmp_path / "out" / "results.json").exists()


def test_an_output_folder_that_is_there(
    run: Command, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a mount: nothing can be made beside it, and it remains itself."""
    begin(tmp_path / "out", "apply")
    with added(tmp_path / "out", "old"):
        pass
    with at_step(monkeypatch, 3, comes_by(signal.SIGTERM)):
        result = run("apply", recipe, trained, "-o", tmp_path / "out", "--force", code=143)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"old", MARK, ".partial"}
    run(*command_in(result.stderr))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {MARK, "results.json", "report.html", "recipe.yaml", "MODEL_CARD.md", "checkpoint"}


@pytest.mark.parametrize(
    ("export", "size"),
    [("", 0), ("safetensors", 1000), ("pt2", 100_000), pytest.param("onnx", 100_000, marks=pytest.mark.extended)],
)
def test_a_disk_that_is_full_at_the_end(
    run: Command, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: str, size: int
) -> None:
    original, (soft, hard) = apply._slim, resource.getrlimit(resource.RLIMIT_FSIZE)

    def slim(*arguments: Any) -> Any:
        found = original(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(apply, "_slim", slim)
        try:
            change = ("--set", f"export=[{export}]", "--set", "benchmark.batch_sizes=[1]")
            result = run("apply", recipe, trained, "-o", tmp_path / "out", *change, code=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "error: cannot write " in result.stderr
    assert "the file is larger than the system allows" in result.stderr
    assert not (tmp_path / "out").exists()
    with at_step(monkeypatch, 0, lambda: None) as steps:
        run(*command_in(result.stderr))
    assert steps == [], "all that was left is to write"
    assert (tmp_path / "out" / "results.json").exists()
    assert not (tmp_path / "out.partial").exists()


def test_a_disk_that_is_full_on_the_way(
    run: Command, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Of the two kinds of files, the results fit and checkpoints within a stage do not.
    with at_step(monkeypatch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))):
        try:
            result = run("apply", recipe, trained, "-o", tmp_path / "out", "--checkpoint-every", 0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.stderr.count("warning: no checkpoint at stage 1, step ") == 9
    documents = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {one["kind"] for one in documents["warnings"]} <= {"short_decay", "short_retraining"}
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.extended
def test_warnings_from_before_the_interruption_are_in_the_results_once(
    run: Command, recipe: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--set", "stages.0.target={weights: [decoder.*]}", "--set", "stages.0.criterion=magnitude")
    options += ("--set", "stages.0.sparsity=0.99", "--set", "stages.0.retrain.trainable=all")
    run("apply", recipe, trained, "-o", tmp_path / "whole", *options)
    with at_step(monkeypatch, 5, comes_by(signal.SIGTERM)):
        result = run("apply", recipe, trained, "-o", tmp_path / "out", *options, code=143)
    run(*command_in(result.stderr))
    found, whole = (json.loads((tmp_path / out / "results.json").read_text()) for out in ("out", "whole"))
    texts = [one["text"] for one in whole["warnings"]]
    assert len(texts) == len(set(texts)) > 0
    assert timeless(found) == timeless(whole)
    assert found["timing"]["phases"]["training"] > 0
    assert found["timing"]["total"] == pytest.approx(sum(found["timing"]["phases"].values()))
