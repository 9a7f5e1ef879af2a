"""The examples run as they are shown, shortened where that is an argument."""

import importlib.util
import itertools
import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Executed = Callable[..., str]

EXAMPLES = Path(__file__).parents[1] / "examples"
LIBRARIES = {"lightning_digits": "lightning", "trainer_digits": "transformers", "accelerate_digits": "accelerate"}


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
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*LIBRARIES, "resnet_channels"}
    assert [path.name for path in EXAMPLES.glob("*.ipynb")] == ["softprune.ipynb"]


@pytest.mark.extended
@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_an_example_trains_prunes_slims_and_exports(name: str, executed: Executed, tmp_path: Path) -> None:
    if importlib.util.find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed: pip install 'softprune[{LIBRARIES[name]}]'")
    shown = executed(EXAMPLES / f"{name}.py", "--quick", "--out", str(tmp_path / "out"))
    parameters = {
        model: int(count.replace(",", "")) for model, count in re.findall(r"^(\w+) +([\d,]+) parameters", shown, re.M)
    }
    assert parameters["slim"] < parameters["pruned"] == parameters["dense"]
    assert f"small.onnx: {(tmp_path / 'out' / 'small.onnx').stat().st_size:,} bytes" in shown


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
