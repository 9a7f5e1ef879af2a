"""`compress reproduce`: choose, run, go on, take over."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress import cli
from compress.errors import InputError
from compress.paper import cells as running
from compress.paper import experiments, reproducing
from compress.paper.experiments import PAPER, all_cells
from compress.recipe import schema

CELLS = all_cells(PAPER)


def test_a_part_brings_its_dense_networks() -> None:
    chosen = reproducing.choose(CELLS, ["latent/mnist"], 1, [0.75])
    assert {(cell.experiment, cell.dataset, cell.dense.seed) for cell in chosen} == {("latent", "mnist", 0)}
    assert {cell.level for cell in chosen} == {0.0, 0.75}
    assert {"dense", "hard", "retrained", "soft", "soft_all", "small"} <= {cell.method for cell in chosen}


@pytest.mark.parametrize(
    ("wanted", "levels", "message"),
    [
        (["latents"], [], "no experiment is called 'latents'; there is calibration"),
        (["latent"], [0.75, 0.76], "no cell has the level 0.76; there is"),
    ],
)
def test_what_does_not_exist_is_told(wanted: list[str], levels: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reproducing.choose(CELLS, wanted, None, levels)


def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """One level, 128 images, one epoch."""
    original = experiments._data

    def data(dataset: str, batch_size: int = 128) -> schema.NamedData:
        return original(dataset, batch_size).model_copy(update={"train": 128, "test": 50})

    monkeypatch.setattr(experiments, "_data", data)
    monkeypatch.setattr(
        experiments,
        "QUICK",
        experiments.replace(
            experiments.QUICK, classifier_epochs={"mnist_sample": 1}, autoencoder_epochs={"mnist_sample": 1}
        ),
    )


def test_a_cell_carries_its_data_and_the_network_that_an_earlier_one_has_trained(tmp_path: Path) -> None:
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "MNIST" / "raw" / "images").write_bytes(b"digits")
    dense, pruned = (
        next(cell for cell in CELLS if cell.dataset == "mnist" and (cell.method == "dense") is whole)
        for whole in (True, False)
    )
    every = [job.carried for job in reproducing._jobs([dense, pruned], tmp_path / "data", tmp_path)]
    assert every[0] is not None
    assert every[1] is not None
    first = every[0]()
    networks = tmp_path / "networks"
    networks.mkdir()
    file = networks / f"{running.key(pruned.dense)}.safetensors"
    file.write_bytes(b"weights")
    second = every[1]()
    assert first.written == second.written == str(networks)
    assert [place.text for place in first.places] == [str(tmp_path / "data")]
    assert [place.text for place in second.places] == [str(tmp_path / "data"), str(file)]


@pytest.mark.usefixtures("sample")
def test_the_command_from_beginning_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(monkeypatch)
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "classification", "--quick", "--levels", ".95", "--workers", "1"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    results = json.loads(Path("runs/paper/paper/results.json").read_text(encoding="utf-8"))
    assert len(results["cells"]) == results["planned"] == 7  # dense, hard, retrained, and four ends of the decay
    page = Path("runs/paper/paper.md").read_text(encoding="utf-8")
    assert "MNIST sample" in page
    keys = {path.stem for path in Path("runs/paper/cells").glob("[!.]*")}
    assert keys == {cell["key"] for cell in results["cells"]}

    # Elsewhere, the finished cells are taken over and nothing is run.
    again = CliRunner().invoke(
        cli.app, [*command, "--draw", "--cache", "other", "--resume", "runs/paper/paper/results.json", "-o", "second"]
    )
    assert again.exit_code == 0, again.output
    assert Path("second/paper.md").read_text(encoding="utf-8") == page


def test_a_wrong_file_to_resume_from(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]", encoding="utf-8")
    done = CliRunner().invoke(cli.app, ["reproduce", "--draw", "--resume", str(tmp_path / "results.json")])
    assert done.exit_code == 2


def test_missing_data_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["reproduce", "decoder/cifar10", "--data-root", "nowhere"])
    assert done.exit_code == 2
    assert "nowhere" in done.output
    assert not list(tmp_path.rglob("*.json"))


def test_a_folder_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(cli.app, ["reproduce", "--quick", "-o", str(tmp_path / "file")])
    assert done.exit_code == 2
    assert "is a file" in done.output
