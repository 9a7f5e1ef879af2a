"""Nothing that a run leaves names a folder of the machine that it was made on, and what it leaves can be run again."""

import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import Result

from compress.recipe.loading import load_recipe
from compress.run.shareable import shareable_recipe, without_folders

ROOT = Path(__file__).parents[2]
HOME = "zaphods-home"

NETWORK = """
import torch
from torch import nn


class Small(nn.Module):
    input_shape = (1, 6, 6)

    def __init__(self, notes):
        super().__init__()
        self.first, self.last = nn.Linear(36, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x.flatten(1))))
"""

RECIPE = """\
name: small
model: {{factory: "small_network_of_zaphod:Small", args: {{notes: {notes}}}}}
data: {data}
task: classify
train: {{epochs: 2, optimizer: adam, lr: 1e-2}}
stages:
  - {{target: {{nodes: first}}, criterion: norms, sparsity: 0.5, removal: hard}}
export: {export}
benchmark: {{batch_sizes: [1]}}
"""


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a file, and of everything in it if it is an archive."""
    found = path.read_bytes()
    yield path.name, found
    if zipfile.is_zipfile(io.BytesIO(found)):
        with zipfile.ZipFile(io.BytesIO(found)) as archive:
            for name in archive.namelist():
                yield f"{path.name}/{name}", archive.read(name)


def stored(kind: str, folder: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, object]:
    """The data of a recipe, by their full path."""
    if kind == "npz":
        np.savez(folder / "tiny.npz", allow_pickle=False, **arrays)
        return {"npz": str(folder / "tiny.npz"), "batch_size": 20}
    for number, (image, label) in enumerate(zip(arrays["images"], arrays["labels"], strict=True)):
        place = folder / "tiny" / f"class_{label}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    return {"folder": str(folder / "tiny"), "batch_size": 20}


@pytest.mark.parametrize(
    ("kind", "export"),
    [
        ("npz", "[onnx, safetensors, pt2, sparse]"),
        pytest.param("folder", "{onnx: {opset: 18}, int8, safetensors, pt2, sparse}", marks=pytest.mark.extended),
    ],
)
def test_no_file_of_a_run_names_a_folder_of_this_machine(
    kind: str,
    export: str,
    run: Callable[..., Result],
    pictures: Callable[..., dict[str, NDArray[Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / HOME
    (home / "data").mkdir(parents=True)
    data = stored(kind, home / "data", pictures())
    (home / "small_network_of_zaphod.py").write_text(NETWORK, encoding="utf-8")
    notes = json.dumps(str(home / "notes.txt"))
    text = RECIPE.format(notes=notes, data=json.dumps(data), export=export)
    (home / "my.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.syspath_prepend(home)
    run("train", home / "my.yaml", "-o", home / "model.pt")
    run("apply", home / "my.yaml", home / "model.pt", "-o", home / "out", "--data-root", home / "data")
    run("export", home / "out" / "slim.safetensors", "--recipe", home / "my.yaml", "-o", home / "files")

    written = [path for folder in ("out", "files") for path in (home / folder).rglob("*") if path.is_file()]
    assert len(written) > 10
    folders = [HOME, str(tmp_path), str(ROOT), sys.prefix, str(Path(np.__file__).parents[1])]
    inside = [(name, content) for path in [*written, home / "model.pt"] for name, content in contents(path)]
    assert [(name, folder) for name, content in inside for folder in folders if folder.encode() in content] == []

    # What is written can be run again where the data are, with the data named.
    again, wanted = load_recipe(home / "out" / "recipe.yaml"), load_recipe(home / "my.yaml")
    assert getattr(again.data, kind) == Path(str(data[kind])).name
    named = load_recipe(home / "out" / "recipe.yaml", [f"data.{kind}={data[kind]}", f"model.args.notes={notes}"])
    assert named == wanted


def test_full_paths_become_names_and_others_stay(recipe: Path) -> None:
    given = load_recipe(recipe)
    for before, after in (
        ("/data/x y/a.npz", "a.npz"),
        ("data/a.npz", "data/a.npz"),
        ("../a.npz", "../a.npz"),
        (r"C:\Users\me\a.npz", "a.npz"),
        (r"\\server\share\me\a.npz", "a.npz"),
        ("~/a.npz", "~/a.npz"),
    ):
        changed = given.model_copy(update={"data": given.data.model_copy(update={"npz": before})})
        found = shareable_recipe(changed)
        assert found.data.npz == after  # type: ignore[union-attr]
        assert shareable_recipe(found) == found
        assert found.model_copy(update={"data": changed.data}) == changed


def test_texts_name_files_by_what_follows_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    document = {
        "warnings": [f"{tmp_path}/here/net.py:3: odd", f"see '{tmp_path}/out/slim.onnx'", "a/b and 1/2"],
        "n": 3,
    }
    assert without_folders(document, [tmp_path / "out"]) == {
        "warnings": ["net.py:3: odd", "see 'slim.onnx'", "a/b and 1/2"],
        "n": 3,
    }
