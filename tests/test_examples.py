"""The examples run as they are shown, shortened where that is an argument."""

import itertools
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

Executed = Callable[..., str]

EXAMPLES = Path(__file__).parents[1] / "examples"
LIBRARIES = {
    "lightning_digits": "lightning",
    "trainer_digits": "transformers",
    "accelerate_digits": "accelerate",
    "bert_classifier": "transformers",
    "latent_diffusion_autoencoder": "diffusers",
    "yolo_heads": "ultralytics",
}
SKIPS = ("latent_diffusion_autoencoder", "yolo_heads")
DIGITS = ("lightning_digits", "trainer_digits", "accelerate_digits")


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Executed:
    """Run a script as `python` does, but in this process, which has imported the libraries; gives what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")

    def execute(script: Path, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")
        return capfd.readouterr().out

    return execute


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*LIBRARIES, "cartpole_policy", "resnet_channels"}
    assert [path.name for path in EXAMPLES.glob("*.ipynb")] == ["softprune.ipynb"]


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_an_example_trains_prunes_slims_and_exports(name: str, executed: Executed, tmp_path: Path) -> None:
    shown = quickly(name, executed, tmp_path)
    found = parameters(shown)
    assert found["slim"] < found["pruned"] == found["dense"]
    assert f"small.onnx: {(tmp_path / 'out' / 'small.onnx').stat().st_size:,} bytes" in shown


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_a_bert_loses_half_of_its_multiply_adds_and_takes_any_length(executed: Executed, tmp_path: Path) -> None:
    shown = quickly("bert_classifier", executed, tmp_path)
    found = parameters(shown)
    assert found["slim"] < 0.7 * found["dense"]
    (right,) = re.findall(r"^slim .* ([\d.]+)% of", shown, re.M)
    assert float(right) > 70
    assert "still a BertForSequenceClassification, with [3, 3] heads" in shown
    lengths = re.findall(r"^onnxruntime: \((\d), (\d+)\) word ids in, \((\d), 2\) logits out", shown, re.M)
    assert len({length for _, length, _ in lengths}) == 2
    assert [rows for rows, _, _ in lengths] == [rows for _, _, rows in lengths] == ["1", "7"]


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_an_autoencoder_loses_a_latent_channel(executed: Executed, tmp_path: Path) -> None:
    shown = quickly("latent_diffusion_autoencoder", executed, tmp_path)
    found = parameters(shown)
    assert found["slim"] < 0.3 * found["dense"]
    assert "still a AutoencoderKL, with 3 latent channels" in shown
    decoder = onnxruntime.InferenceSession(tmp_path / "out" / "decoder.onnx")
    assert [value.shape[1:] for value in decoder.get_inputs()] == [[3, 7, 7]]
    assert [value.shape[1:] for value in decoder.get_outputs()] == [[1, 28, 28]]


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_the_raw_heads_of_yolo(executed: Executed, tmp_path: Path) -> None:
    shown = quickly("yolo_heads", executed, tmp_path)
    dense, slim = (int(count.replace(",", "")) for count in re.findall(r" ([\d,]+) parameters", shown))
    assert slim < 0.4 * dense
    session = onnxruntime.InferenceSession(tmp_path / "out" / "yolov8n.onnx")
    assert [value.name for value in session.get_outputs()] == ["boxes", "scores"]


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("name", SKIPS)
def test_an_example_without_its_library_says_so(
    name: str, executed: Executed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[name], None)
    shown = executed(EXAMPLES / f"{name}.py", "--out", str(tmp_path / "out"))
    assert re.fullmatch(rf"Skipped: the package {LIBRARIES[name]} .*is not installed: pip install .*\n", shown)
    assert not (tmp_path / "out").exists()


def quickly(name: str, executed: Executed, folder: Path) -> str:
    """What the example prints, shortened; its files are in `out`."""
    pytest.importorskip(LIBRARIES[name])
    return executed(EXAMPLES / f"{name}.py", "--quick", "--out", str(folder / "out"))


def parameters(shown: str) -> dict[str, int]:
    return {model: int(n.replace(",", "")) for model, n in re.findall(r"^(\w+) +([\d,]+) parameters", shown, re.M)}


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
def test_the_channels_of_a_resnet_in_a_plain_loop(executed: Executed, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two batches an epoch."""

    class Short(torch.utils.data.DataLoader):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return itertools.islice(super().__iter__(), len(self))

        def __len__(self) -> int:
            return 2

    monkeypatch.setattr(torch.utils.data, "DataLoader", Short)
    script = EXAMPLES / "resnet_channels.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) < 40
    shown = executed(script)
    assert "Pruner(* without conv1: " in shown
    (parameters,) = re.findall(r"right, ([\d,]+) parameters$", shown, re.M)
    assert int(parameters.replace(",", "")) < 0.9 * 11_181_642


def notebook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLES / "softprune.ipynb").read_text(encoding="utf-8"))
    return content


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
def test_the_notebook_runs_from_top_to_bottom(executed: Executed, tmp_path: Path) -> None:
    """Its cells one after the other, as a script: nothing in them needs a kernel."""
    cells = ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "notebook.py").write_text("\n".join(cells), encoding="utf-8")
    shown = executed(tmp_path / "notebook.py")
    found = dict(re.findall(r"^(\w+) +([\d,]+) parameters", shown, re.M))
    assert found == {"dense": "101,770", "masked": "101,770", "slim": "12,730"}
    assert all(re.search(rf"^{name} .* ms for a batch of 32$", shown, re.M) for name in found)


@pytest.mark.extended
def test_a_recurrent_policy_keeps_8_of_64_states(executed: Executed, tmp_path: Path) -> None:
    """One update of PPO and two rounds of learning: it runs, and does not balance for long."""
    pytest.importorskip("gymnasium")
    short = ("--updates", "1", "--rounds", "2", "--removal", "soft", "hard", "--out", str(tmp_path / "found.json"))
    shown = executed(EXAMPLES / "cartpole_policy.py", *short)
    (found,) = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["runs"]
    for name, states, parameters in (("dense", 64, 13_186), ("soft", 8, 306), ("hard", 8, 306)):
        assert f"seed 0: {name}, {states} states, {parameters:,} parameters: {found[name]:.1f} of 500" in shown
        assert 1 <= found[name] <= 500
