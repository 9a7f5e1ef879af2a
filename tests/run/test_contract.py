"""The input contract is one text, in everything that a run leaves, and it says what the files take and give."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from blocks import blocks
from safetensors import safe_open
from typer.testing import Result

from compress.errors import InputError
from compress.results import CONTRACT, Contract, contract_text
from compress.run.contract import MAX_CHARACTERS, noted_contract
from compress.run.inspecting import inspect
from compress.typed_json import first_mistake

Run = Callable[..., Result]

REPORT = Path(__file__).parents[2] / "docs" / "report.md"


def texts(folder: Path, name: str = "slim") -> list[str]:
    """The contract in the metadata of each file."""
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        weights = file.metadata()
    notes = {CONTRACT: ""}
    torch.export.load(folder / f"{name}.pt2", extra_files=notes)
    return [found[CONTRACT] for found in (session.get_modelmeta().custom_metadata_map, weights, notes)]


def test_it_is_the_same_everywhere(applied: Path, results: dict[str, Any]) -> None:
    text = contract_text(results["contract"])
    assert texts(applied) == [text] * 3
    assert f"```json\n{text}\n```" in (applied / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"<code>{text}</code>" in html.unescape((applied / "report.html").read_text(encoding="utf-8"))
    assert text.isascii()
    assert "\n" not in text


def test_it_says_what_the_file_takes_and_gives(applied: Path, results: dict[str, Any]) -> None:
    contract, session = results["contract"], onnxruntime.InferenceSession(applied / "slim.onnx")
    for given, found in ((contract["inputs"], session.get_inputs()), (contract["outputs"], session.get_outputs())):
        assert [(one["name"], one["dtype"], one["shape"]) for one in given] == [
            (one.name, {"tensor(float)": "float32"}[one.type], one.shape) for one in found
        ]
    assert contract["preparation"]["mean"] == results["data"]["mean"]
    assert contract["preparation"]["std"] == results["data"]["std"]
    assert contract["versions"] == results["versions"]


@pytest.mark.extended
def test_export_keeps_how_samples_are_prepared(applied: Path, run: Run, tmp_path: Path) -> None:
    before = noted_contract(inspect(applied / "slim.onnx")["metadata"], "slim.onnx")
    run("export", applied / "slim.safetensors", "-o", tmp_path / "out", "--opset", "19")
    first, *others = texts(tmp_path / "out", "model")
    assert others == [first] * 2
    assert before is not None
    assert json.loads(first) == {**before, "opset": 19}


def test_inspect_shows_it(applied: Path, run: Run) -> None:
    for name in ("slim.onnx", "slim.pt2", "slim.safetensors"):
        text = run("inspect", applied / name).stdout
        assert "takes input, float32 [batch, 1, 6, 6]" in text
        assert "gives output, float32 [batch, 1, 6, 6]" in text
        found = json.loads(run("inspect", applied / name, "--json").stdout)
        assert contract_text(found["contract"]) == found["metadata"][CONTRACT]
    assert "takes" not in run("inspect", applied / "checkpoint" / "masked.safetensors").stdout


GOOD: Contract = {
    "inputs": [{"name": "input", "dtype": "float32", "shape": ["batch", 3]}],
    "outputs": [{"name": "output", "dtype": "float32", "shape": ["batch", None, 2]}],
    "preparation": None,
    "classes": ["ä", "b"],
    "opset": None,
    "versions": dict.fromkeys(("python", "softprune", "torch", "onnx", "onnxruntime"), "1"),
}


def test_a_file_without_one_is_fine() -> None:
    assert noted_contract({}, "a.onnx") is None
    assert noted_contract({CONTRACT: contract_text(GOOD)}, "a.onnx") == GOOD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting property name"),
        ("[" * 10_000, "nested deeper"),
        ("[]", "is not of type 'object'"),
        ('{"inputs": [{"name": 3}]}', "is missing"),
        (json.dumps({**GOOD, "opset": "20"}), "opset"),
        (json.dumps({**GOOD, "inputs": []}), "inputs"),
        (json.dumps(GOOD).replace('"input"', "NaN"), "NaN is not a number"),
        (" " * (MAX_CHARACTERS + 1), "characters"),
    ],
)
def test_a_damaged_one_is_an_error(text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"the contract inside a\.onnx is damaged: .*") as error:
        noted_contract({CONTRACT: text}, "a.onnx")
    assert said in str(error.value)


def test_the_documented_one_is_one() -> None:
    (block,) = blocks(REPORT, "json")
    shown = json.loads(block.text)
    assert first_mistake(shown, Contract) is None
    assert set(shown) == set(Contract.__annotations__)


def test_the_documented_code_reads_it(applied: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(applied.parent)
    (block,) = blocks(REPORT, "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, "report.md", "exec"), names)
    assert names["contract"] == results["contract"]
