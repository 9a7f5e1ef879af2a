"""The code of card and page runs as it stands: a raw sample, the files and no package of ours; and it says the same."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import compress.export
from compress.data.sources import from_folder
from compress.inputs import Inputs
from compress.report.snippets import snippets
from compress.results import CONTRACT, Contract, Results, contract_text
from compress.run.contract import contract_of

ROOT = Path(__file__).parents[2]
SAVE = """
import numpy as np
np.save("output.npy", output.detach() if hasattr(output, "detach") else output)
"""
CHECK = """
import sys
import numpy as np
assert not {"compress", "torch"} & sys.modules.keys()
np.save("output.npy", output)
"""


def results_of(contract: Contract | None, export: Sequence[str] = ("onnx",)) -> Results:
    recipe = {"export": list(export), "model": {"name": "classifier", "image": [1, 6, 6], "classes": 3}}
    return cast(Results, {"recipe": recipe, "data": {}, **({} if contract is None else {"contract": contract})})


def written(
    folder: Path,
    model: nn.Module,
    example: object,
    preparation: dict[str, Any] | None,
    classes: Sequence[str] | None = None,
    dynamic: Any = None,
) -> Contract:
    """`slim.onnx` of the network in the folder, with its contract."""
    contract = contract_of(model, example, dynamic, preparation=preparation, classes=classes, opset=20)
    note = {CONTRACT: contract_text(contract)}
    compress.export.onnx(model, folder / "slim.onnx", example, dynamic=dynamic, metadata=note)
    return contract


def says(folder: Path, contract: Contract | None) -> tuple[NDArray[Any], str]:
    """(output, what is printed) of the code for `slim.onnx`, in a fresh process that stands in the folder."""
    (code,) = [code for file, _, code in snippets(results_of(contract)) if file == "slim.onnx"]
    (folder / "use.py").write_text(code + CHECK, encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "use.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "output.npy"), done.stdout.strip()


def same(found: NDArray[Any], model: nn.Module, given: Inputs) -> None:
    with torch.no_grad():
        np.testing.assert_allclose(found, given.call(model.eval()), atol=1e-5)


def dense(size: int, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, classes))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture(channels: int, tmp_path: Path) -> None:
    """A PNG, against what our own reader makes of the same file."""
    chance = np.random.default_rng(0)
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            pixels = chance.integers(0, 256, (5, 6, channels), np.uint8)
            Image.fromarray(pixels.squeeze()).save(tmp_path / "data" / name / f"{number}.png")
    data = from_folder(tmp_path / "data")
    model = dense(30 * channels, 2)
    contract = written(tmp_path, model, data.example, data.preparation.described(), ["cat", "dog"])
    given, label = next(iter(data.batches("test", 1, "classify")()))
    pixels = (given * data.std.view(-1, 1, 1) + data.mean.view(-1, 1, 1)).mul(255).round().byte()[0]
    Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze()).save(tmp_path / "image.png")
    output, printed = says(tmp_path, contract)
    same(output, model, Inputs((given,)))
    assert printed == ["cat", "dog"][int(output[0].argmax())]
    assert label.shape == (1,)


def test_arrays(tmp_path: Path) -> None:
    """Zeros of each input's own type and shape stand for the arrays."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.last = nn.Embedding(9, 4), nn.Linear(7, 2)

        def forward(self, ids: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
            return self.last(torch.cat([self.embed(ids).mean(1), more], 1))

    example = {"ids": torch.zeros(2, 5, dtype=torch.long), "more": torch.zeros(2, 3)}
    model = Two()
    contract = written(tmp_path, model, example, {"kind": "arrays"}, dynamic={"ids": {1: "length"}})
    assert [(one["name"], one["dtype"], one["shape"]) for one in contract["inputs"]] == [
        ("ids", "int64", ["batch", "length"]),
        ("more", "float32", ["batch", 3]),
    ]
    output, _ = says(tmp_path, contract)
    same(output, model, Inputs((), {"ids": torch.zeros(1, 1, dtype=torch.long), "more": torch.zeros(1, 3)}))


@pytest.mark.parametrize("known", [None, {"kind": "of a later version", "words": ["x"]}])
def test_what_only_the_owner_knows_is_left_to_the_owner(known: dict[str, Any] | None, tmp_path: Path) -> None:
    model = dense(4, 2)
    contract = written(tmp_path, model, torch.zeros(2, 4), known)
    output, _ = says(tmp_path, contract)
    same(output, model, Inputs((torch.zeros(1, 4),)))


def test_files_without_a_contract_are_from_older_versions() -> None:
    for _, _, code in snippets(results_of(None, ("onnx", "pt2", "safetensors", "sparse"))):
        compile(code, "snippet", "exec")
        assert "json" not in code


PARTS = [
    {"kind": "images", "mean": [0.5], "std": [0.2]},
    {"kind": "images", "mean": [0.5], "std": [0.2], "upright": True, "channels": "rgb", "resize": 8, "crop": [4, 4]},
    {"kind": "table", "columns": [], "categories_as": "codes", "unknown_categories": "error", "targets": []},
    {"kind": "text", "tokenizer": "tokenizer.json", "sha256": "0", "length": 4, "next_token": True},
    {"kind": "arrays"},
    None,
]


@pytest.mark.parametrize("known", PARTS)
@pytest.mark.parametrize("names", [["input"], ["ids", "mask"]])
def test_nothing_of_the_results_becomes_code(known: dict[str, Any] | None, names: list[str]) -> None:
    """Results may be from anywhere: every text in them is bait, and no snippet has any of it."""

    def baited(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: baited(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [baited(inner) for inner in value] or [BAIT]
        return BAIT if isinstance(value, str) and value not in KEPT else value

    shape = ["batch", 1, 6, 6]
    contract: Any = {
        "inputs": [{"name": name, "dtype": "float32", "shape": shape} for name in names],
        "outputs": [{"name": "output", "dtype": "float32", "shape": ["batch", 1]}],
        "preparation": baited(known),
        "classes": [BAIT],
        "opset": 20,
        "versions": {"torch": BAIT},
    }
    codes = [code for _, _, code in snippets(results_of(contract, ("onnx", "pt2", "safetensors", "sparse")))]
    assert len(codes) == 4
    for code in codes:
        compile(code, "snippet", "exec")
        assert "bait" not in code


BAIT = '"); __import__("os").system("bait") #'
KEPT = {"images", "table", "text", "arrays", "rgb", "codes", "error", "tokenizer.json"}


def test_every_snippet_of_a_run_works(classified: Path, tmp_path: Path, pictures: Any) -> None:
    """As the card has them, beside the files; all agree."""
    results = json.loads((classified / "results.json").read_text(encoding="utf-8"))
    found = pictures()["images"][7]
    for path in classified.glob("slim.*"):
        (tmp_path / path.name).symlink_to(path)
    Image.fromarray(found).save(tmp_path / "image.png")
    card = (classified / "MODEL_CARD.md").read_text(encoding="utf-8")
    outputs = []
    for file, _, code in snippets(results):
        assert f"```python\n{code}```" in card
        if file == "slim.safetensors":
            continue  # it ends with the network
        (tmp_path / "use.py").write_text(code + SAVE, encoding="utf-8")
        subprocess.run([sys.executable, "use.py"], cwd=tmp_path, check=True, capture_output=True)
        outputs.append(np.load(tmp_path / "output.npy"))
    assert len(outputs) == 2
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)
    mean, std = (np.array(results["contract"]["preparation"][key]) for key in ("mean", "std"))
    slim = compress.load(classified / "slim.safetensors", lambda: compress.models.classifier((1, 6, 6), 3))
    given = torch.tensor((found / 255 - mean) / std, dtype=torch.float32)[None, None]
    np.testing.assert_allclose(outputs[0], slim(given).detach(), atol=1e-5)
