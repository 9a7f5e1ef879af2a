"""The code of card and page runs as it stands: a raw sample, the files and no package of ours; and it says the same."""

import csv
import hashlib
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
from torchvision.transforms import v2

import compress.export
from compress.data.sources import from_folder
from compress.inputs import Inputs
from compress.report.snippets import snippets
from compress.results import CONTRACT, Contract, Results, contract_text
from compress.run.contract import contract_of

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.extended)])
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
    """Ones of each input's own type and shape represent the arrays: also a mask or a length may be 1."""

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
    same(output, model, Inputs((), {"ids": torch.ones(1, 1, dtype=torch.long), "more": torch.ones(1, 3)}))


@pytest.mark.extended
def test_arrays_are_scaled(tmp_path: Path) -> None:
    known = {"kind": "arrays", "inputs": {"input": {"mean": [1.0, 2.0, 3.0, 4.0], "std": [2.0, 2.0, 2.0, 2.0]}}}
    model = dense(4, 2)
    output, _ = says(tmp_path, written(tmp_path, model, torch.zeros(2, 4), known))
    same(output, model, Inputs((-torch.tensor([[0.0, 0.5, 1.0, 1.5]]),)))


PICTURE = {"kind": "images", "mean": [0.25], "std": [0.5]}


@pytest.mark.extended
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"channels": "grey", "resize": [4, 8]}, v2.Resize((4, 8))),
        ({"channels": "rgb", "resize": 6, "crop": 5}, v2.Compose([v2.Resize(6), v2.CenterCrop(5)])),
        ({"channels": "rgb", "resize": [9, 7], "crop": [4, 5]}, v2.Compose([v2.Resize((9, 7)), v2.CenterCrop((4, 5))])),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_picture_of_any_size(more: dict[str, Any], expected: v2.Transform, turned: bool, tmp_path: Path) -> None:
    """A photograph in colour, against torchvision."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6 if turned else 1  # the orientation
    image.save(tmp_path / "image.png", exif=exif)
    upright = image.transpose(Image.Transpose.ROTATE_270) if turned else image
    pixels = v2.functional.pil_to_tensor(expected(upright.convert("L" if more["channels"] == "grey" else "RGB")))
    given = ((pixels / 255 - 0.25) / 0.5)[None]
    model = dense(given.numel(), 2)
    output, _ = says(tmp_path, written(tmp_path, model, given, {**PICTURE, "upright": True, **more}))
    same(output, model, Inputs((given,)))


COLUMNS = [
    {"name": "age", "kind": "number", "mean": 40.0, "std": 10.0, "fill": 42.0},
    {"name": "größe, cm", "kind": "number", "mean": 170.0, "std": 5.0, "fill": None},
    {"name": "town", "kind": "category", "categories": ["Bonn", 'New "York"', "Rom"], "fill": "Bonn"},
]
TARGET = {"name": "income", "kind": "number", "mean": 100.0, "std": 20.0, "fill": None}


def table(path: Path, *rows: dict[str, str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    "town", ["NA", *(pytest.param(town, marks=pytest.mark.extended) for town in ('New "York"', " Rom "))]
)
def test_a_row(town: str, tmp_path: Path) -> None:
    """Statistics, what is missing, and categories as columns; the prediction is in the target's own unit."""
    known = {"kind": "table", "columns": COLUMNS, "categories_as": "one_hot", "unknown_categories": "error"}
    table(tmp_path / "row.csv", {"unused": "x", "town": town, "größe, cm": "180", "age": ""})
    place = {'New "York"': 1, " Rom ": 2, "NA": 0}[town]
    given = torch.tensor([[0.2, 2.0, *(float(place == number) for number in range(3))]])
    model = dense(5, 1)
    output, printed = says(tmp_path, written(tmp_path, model, given, {**known, "targets": [TARGET]}))
    same(output, model, Inputs((given,)))
    assert printed.startswith("income ")
    assert float(printed.split()[1]) == pytest.approx(output[0, 0] * 20 + 100, rel=1e-5)


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(4, 3), nn.Linear(5, 2)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([numbers, self.embed(codes).flatten(1)], 1))


@pytest.mark.extended
@pytest.mark.parametrize(("town", "code"), [("Bonn", 1), ("Rom", 3), ("Paris", 0)])
def test_a_row_with_categories_as_codes(town: str, code: int, tmp_path: Path) -> None:
    known = {"kind": "table", "columns": COLUMNS, "categories_as": "codes", "unknown_categories": "zero"}
    table(tmp_path / "row.csv", {"town": town, "größe, cm": "165", "age": "20"})
    given = {"numbers": torch.tensor([[-2.0, -1.0]]), "codes": torch.tensor([[code]])}
    model = Embedding()
    targets = [{"name": "kind", "kind": "category", "categories": ["a", "b"], "fill": None}]
    contract = written(tmp_path, model, given, {**known, "targets": targets}, ["a", "b"])
    output, printed = says(tmp_path, contract)
    same(output, model, Inputs((), given))
    assert printed == "ab"[int(output[0].argmax())]


@pytest.mark.extended
def test_an_unknown_category_is_an_error(tmp_path: Path) -> None:
    known = {"kind": "table", "columns": COLUMNS, "categories_as": "one_hot", "unknown_categories": "error"}
    table(tmp_path / "row.csv", {"town": "Paris", "größe, cm": "180", "age": "1"})
    with pytest.raises(AssertionError, match="Paris is none of"):
        says(tmp_path, written(tmp_path, dense(5, 1), torch.zeros(1, 5), {**known, "targets": []}))


class Ahead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.states, self.last = nn.GRU(5, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.last(self.states(rows)[0][:, -1:])


@pytest.mark.extended
def test_the_last_rows_of_a_series(tmp_path: Path) -> None:
    known = {"kind": "series", "columns": COLUMNS, "unknown_categories": "zero", "window": 2, "horizon": 1}
    rows = [{"age": str(age), "größe, cm": "170", "town": "Bonn"} for age in (10, 40, 60)]
    table(tmp_path / "rows.csv", *rows)
    given = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0], [2.0, 0.0, 1.0, 0.0, 0.0]]])
    model = Ahead()
    contract = written(tmp_path, model, given, {**known, "targets": ["age", "größe, cm"]})
    output, printed = says(tmp_path, contract)
    same(output, model, Inputs((given,)))
    assert [line.rpartition(" ")[0] for line in printed.splitlines()] == ["age", "größe, cm"]
    assert float(printed.splitlines()[0].split()[-1]) == pytest.approx(output[0, 0, 0] * 10 + 40, rel=1e-5)


class Reads(nn.Module):
    """The sum of what is learned of each token that is there."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(tokens, 4), nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.last((self.embed(input_ids) * attention_mask[..., None]).sum(1))


SENTENCE = "Any sentence."  # as the snippet has it


@pytest.mark.parametrize("length", [5, pytest.param(20, marks=pytest.mark.extended)])
@pytest.mark.parametrize("kind", ["bytes", "chars", "tokenizer.json"])
def test_a_sentence(kind: str, length: int, tmp_path: Path) -> None:
    """Cut or padded to the length, against ids that are written down here, or those of the library."""
    known = {"kind": "text", "tokenizer": kind, "padding": 0, "length": length, "next_token": False}
    if kind == "bytes":
        ids = list(SENTENCE.encode())
    elif kind == "chars":
        known["vocabulary"] = "Aenst "
        ids = [{letter: place for place, letter in enumerate("Aenst ", 2)}.get(letter, 1) for letter in SENTENCE]
    else:
        tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
        words = {"[PAD]": 0, "[UNK]": 1, "Any": 2, "sentence": 3}
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        made.save(str(tmp_path / "tokenizer.json"))
        known["sha256"] = hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
        ids = [2, 3, 1]
    there = min(len(ids), length)
    padded = [*ids[:length], *[0] * (length - there)]
    mask = [1] * there + [0] * (length - there)
    given = {"input_ids": torch.tensor([padded]), "attention_mask": torch.tensor([mask])}
    model = Reads(256)
    output, printed = says(tmp_path, written(tmp_path, model, given, known, ["bad", "good"]))
    same(output, model, Inputs((), given))
    assert printed == ["bad", "good"][int(output[0].argmax())]


@pytest.mark.extended
def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    known = {"kind": "text", "tokenizer": "tokenizer.json", "sha256": "0" * 64, "padding": 0, "length": 4}
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    given = {"input_ids": torch.arange(4)[None], "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with pytest.raises(AssertionError, match="another tokenizer"):
        says(tmp_path, written(tmp_path, Reads(9), given, known))


class Speaks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.states = nn.Embedding(257, 4), nn.GRU(4, 4, batch_first=True)
        self.last = nn.Linear(4, 257)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.states(self.embed(ids))[0])


@pytest.mark.extended
@pytest.mark.parametrize("length", [5, 20])
def test_the_token_that_follows(length: int, tmp_path: Path) -> None:
    """Of the last tokens; what is padded at the end changes nothing before it."""
    known = {"kind": "text", "tokenizer": "bytes", "padding": 256, "length": length, "next_token": True}
    model = Speaks()
    _, printed = says(tmp_path, written(tmp_path, model, torch.zeros(1, length, dtype=torch.long), known))
    alone = model(torch.tensor([list(SENTENCE.encode())[-length:]]))
    assert int(printed) == int(alone[0, -1].argmax())


@pytest.mark.parametrize("known", [None, {"kind": "of a later version", "words": ["x"]}])
def test_what_only_the_owner_knows_is_left_to_the_owner(known: dict[str, Any] | None, tmp_path: Path) -> None:
    model = dense(4, 2)
    contract = written(tmp_path, model, torch.zeros(2, 4), known)
    output, _ = says(tmp_path, contract)
    same(output, model, Inputs((torch.ones(1, 4),)))


def test_files_without_a_contract_are_from_older_versions() -> None:
    for _, _, code in snippets(results_of(None, ("onnx", "pt2", "safetensors", "sparse"))):
        compile(code, "snippet", "exec")
        assert "json" not in code


PARTS = [
    {"kind": "images", "mean": [0.5], "std": [0.2]},
    {"kind": "images", "mean": [0.5], "std": [0.2], "upright": True, "channels": "rgb", "resize": 8, "crop": [4, 4]},
    {"kind": "table", "columns": [], "categories_as": "codes", "unknown_categories": "error", "targets": []},
    {"kind": "text", "tokenizer": "tokenizer.json", "sha256": "0", "length": 4, "next_token": True},
    {"kind": "series", "columns": [], "window": 2, "horizon": 1, "targets": []},
    {"kind": "arrays"},
    {"kind": "arrays", "inputs": {"input": {"mean": [0], "std": [1]}}},
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
KEPT = {"images", "table", "series", "text", "arrays", "rgb", "codes", "error", "tokenizer.json"}
