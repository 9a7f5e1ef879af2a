"""The code of the snippets makes of a raw sample what our own readers make of it."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compress.data.image_options import ImageOptions
from compress.data.series import Windows, from_series
from compress.data.sources import from_folder
from compress.data.table_columns import TableSettings
from compress.data.table_files import CsvFile
from compress.data.tables import from_table
from compress.data.texts import TextPreparation
from compress.data.tokenization import Bytes, Characters, Tokenization, TokenizerFile
from compress.inputs import Inputs
from compress.report.preparing import preparing


def made(described: dict[str, Any], given: dict[str, Tensor]) -> dict[str, Any]:
    """The inputs that the code makes in the current folder, for a file that takes inputs like `given`."""
    known = json.loads(json.dumps(described))
    inputs = [{"name": name, "dtype": "", "shape": ["batch", *one.shape[1:]]} for name, one in given.items()]
    outputs = [{"name": "output", "dtype": "float32", "shape": ["batch", 1]}]
    contract: Any = {"inputs": inputs, "outputs": outputs, "preparation": known, "classes": None}
    code, names = preparing(contract), {"np": np, "contract": contract, "known": known}
    for line in (*code.standard, *code.packages.values()):
        exec(line, names)
    exec(code.lines, names)
    found: dict[str, Any] = names["inputs"]
    return found


def same(found: dict[str, Any], given: dict[str, Tensor]) -> None:
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_allclose(found[name], tensor, atol=1e-6)


def rows(count: int) -> list[dict[str, str]]:
    chance = random.Random(0)
    return [
        {
            "age": chance.choice(["20", "31.5", "47", "", "n/a"]),
            "gr\u00f6\u00dfe, cm": f"{chance.gauss(170, 10):.1f}",
            "town": chance.choice(["Rom", " Bonn", "", 'New "York"']),
            "y": f"{chance.gauss(3, 2):.3f}",
        }
        for _ in range(count)
    ]


def table(path: Path, rows: list[dict[str, str]]) -> CsvFile:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return CsvFile(path)


@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("unknown", ["error", "zero"])
def test_rows_of_a_table(embed: bool, unknown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = rows(60)
    settings = TableSettings(target=("y",), categorical=("town",), impute="median", embed=embed, unknown=unknown)
    whole = table(tmp_path / "all.csv", found)
    for row in found[:5]:
        data = from_table(whole, table(tmp_path / "row.csv", [row]), settings)
        given = dict(data.test.inputs)
        same(made(data.preparation.described(), given), given)


def test_the_end_of_a_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, windows = rows(60), Windows(window=5, horizon=2)
    settings = TableSettings(categorical=("town",), impute="median")
    whole = table(tmp_path / "all.csv", found)
    data = from_series(whole, table(tmp_path / "test.csv", found[:7]), windows, settings)
    table(tmp_path / "rows.csv", found[:5])
    given = dict(data.test.inputs)
    same(made(data.preparation.described(), given), given)


@pytest.mark.parametrize("length", [5, 40])
@pytest.mark.parametrize("kind", ["bytes", "chars", "tokenizer.json"])
@pytest.mark.parametrize("inputs", [("input_ids", "attention_mask"), ("input_ids", "token_type_ids"), ("input",)])
def test_a_sentence(
    kind: str, inputs: tuple[str, ...], length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    preparation = TextPreparation(tokenization(kind, tmp_path), length, inputs, windows=False)
    given = named(preparation.encode("Any sentence."))
    same(made(preparation.described(), given), given)


@pytest.mark.parametrize("length", [5, 40])
@pytest.mark.parametrize("kind", ["bytes", "chars", "tokenizer.json"])
def test_a_text_to_continue(kind: str, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own encoding is as long as the text; the code pads it at the end, since a file may take one length alone."""
    monkeypatch.chdir(tmp_path)
    preparation = TextPreparation(tokenization(kind, tmp_path), length, ("input",), windows=True)
    given = named(preparation.encode("Any sentence."))
    found = made(preparation.described(), given)
    count = given["input"].shape[1]
    same({"input": found["input"][:, :count]}, given)
    assert (found["input"][:, count:] == preparation.tokenization.padding).all()
    assert found["input"].shape == (1, length)


def tokenization(kind: str, folder: Path) -> Tokenization:
    if kind != "tokenizer.json":
        return Bytes() if kind == "bytes" else Characters("Aenstc y")
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "Any": 4, "sentence": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    made.save(str(folder / "tokenizer.json"))
    return TokenizerFile((folder / "tokenizer.json").read_text(encoding="utf-8"), "tokenizer.json")


def named(given: Inputs) -> dict[str, Tensor]:
    return {"input": given.args[0]} if given.args else dict(given.kwargs)


@pytest.mark.parametrize(
    "options",
    [
        ImageOptions(resize=(6, 9)),
        ImageOptions(channels="grey", resize=7, crop=6, normalise="none"),
        ImageOptions(channels="rgb", resize=8, crop=(5, 6), upright=True, normalise="imagenet"),
    ],
)
def test_a_photograph(options: ImageOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(0)
    for number, name in enumerate(("train/cat", "train/dog", "test/cat")):
        (tmp_path / "data" / name).mkdir(parents=True)
        image = Image.fromarray(chance.integers(0, 256, (10 + number, 14, 3), np.uint8))
        exif = image.getexif()
        exif[0x0112] = 6  # turned
        image.save(tmp_path / "data" / name / "0.png", exif=exif)
    (tmp_path / "data" / "test" / "dog").mkdir()
    image.save(tmp_path / "data" / "test" / "dog" / "1.png", exif=exif)
    image.save(tmp_path / "image.png", exif=exif)
    data = from_folder(tmp_path / "data", options=options)
    (batch, _) = next(iter(data.batches("test", 1, "classify")()))
    given = {"input": batch if isinstance(batch, torch.Tensor) else batch.tensors[0]}
    assert data.preparation is not None
    same(made(data.preparation.described(), given), given)
