"""Files that were damaged, or made up, by chance: each is read, or refused with an error of this package. Nothing else.

An input is a valid file with a few mutations, of its bytes or of the structure that they represent. The short version
runs always, with the same inputs each time; `-m slow` tries `LONG` inputs of every kind, with others each day unless
COMPRESS_FUZZ_SEED says which. An error names target and number of the input, which make it again.
"""

import ast
import json
import os
import resource
import shutil
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from PIL import Image
from rich.console import Console
from torch import nn

from compress.data.array_dataset import ArrayDataset
from compress.data.array_samples import ArrayNames, from_arrays
from compress.data.image_options import ImageOptions, Statistics
from compress.data.series import Windows, from_series
from compress.data.sources import from_folder, from_npz
from compress.data.table_columns import TableSettings
from compress.data.table_files import CsvFile, ParquetFile, TableFile
from compress.data.tables import from_table
from compress.data.text_files import Columns
from compress.data.texts import TextPreparation, from_text
from compress.data.tokenization import tokenization
from compress.data.training import training_batches
from compress.errors import CompressError, InputError
from compress.export.contents import inspect
from compress.files.checkpoint import load, read_weights
from compress.files.packing import KEY, packed
from compress.recipe.loading import load_recipe, resolved_yaml
from compress.recipe.shipped import shipped, shipped_text
from compress.report import files, page, tables
from compress.report.card import model_card
from compress.slimming.edits import ShapeEdit, apply_edits, edits_to_json
from compress.slimming.shrink import slim
from compress.sweep.cell_store import Cells, checksum

SHORT = 150
LONG = {"torch": 30_000, "safetensors": 30_000, "program": 15_000, "onnx": 2_000, "edits": 10_000, "recipe": 6_000}
LONG |= {"change": 2_000, "results": 2_000, "page": 10_000, "npz": 20_000, "folder": 20_000, "cell": 20_000}
LONG |= {"text": 15_000, "tokenizer": 10_000}
LONG |= {"csv": 12_000, "parquet": 6_000, "arrays": 8_000}
LONG |= {"pickle": 20_000, "functions": 20_000, "listing": 20_000, "packed": 20_000, "shards": 10_000}

SECONDS = 20.0
"""The most that one input may take: a machine may be busy, and a hang has no end."""

BYTES = 2**30
"""The most that the memory may grow while thousands of inputs of some kilobytes are read."""

NASTY = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\r",
    "\u202e",
    "a | b",
    "<script>",
    "[bold]",
    "[/]",
    "`x`",
    "\n# x",
    "é",
    "\0",
    "",
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**40,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
    10**30,
    0.5,
    1e308,
)


class Net(nn.Sequential):
    """Small, with everything that shape edits are about."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=2)),
            *(nn.Flatten(), nn.Linear(64, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 1, 2)),
        )


# --- mutations ---


def damaged(content: bytes, chance: Random) -> bytes:
    """A few bytes changed, cut out, put in or doubled."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place, length = chance.randrange(len(changed) + 1), chance.choice((1, 1, 2, 4, 8, 64, 1000))
        match chance.randrange(6):
            case 0:
                changed[place : place + length] = chance.randbytes(length)
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = chance.randbytes(length)
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4 if place < len(changed):
                changed[place] ^= 1 << chance.randrange(8)
            case _:
                number = chance.choice((0, 1, 2**7, 2**15, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
                changed[place : place + 8] = number.to_bytes(8, "little")
    return bytes(changed[: chance.randrange(len(changed) + 1)] if chance.random() < 0.05 else changed)


def disturbed(value: Any, chance: Random) -> Any:
    """JSON, somewhere in which a value is another one, of another type, gone, doubled, or deeply nested."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest = {other: inner for other, inner in value.items() if other != key}
        if chance.random() < 0.08:
            return rest
        if chance.random() < 0.05:
            return {**value, chance.choice(NASTY) + key: value[key]}
        return {**value, key: disturbed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        index = chance.randrange(len(value))
        if chance.random() < 0.1:
            return value[:index] + value[index + 1 :] + value[index : index + 1] * chance.choice((0, 2, 50))
        return [*value[:index], disturbed(value[index], chance), *value[index + 1 :]]
    return chance.choice((*NUMBERS, *NASTY, None, True, False, [], {}, [value], {"a": value}, nested(), [value] * 3))


def nested() -> Any:
    value: Any = 1
    for _ in range(100):
        value = [value]
    return value


def rezipped(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return made.getvalue()


# --- targets: each takes its turn's chance and a folder, and reads one input ---


def saved(state: object, **how: Any) -> bytes:
    buffer = BytesIO()
    torch.save(state, buffer, **how)
    return buffer.getvalue()


def torch_seeds() -> tuple[bytes, ...]:
    state = Net().state_dict()
    masked = {"w_orig": torch.ones(3), "w_mask": torch.tensor([1.0, 0, 1]), "w_pruned": torch.zeros(3).bool()}
    odd = {
        "a": torch.zeros(2, dtype=torch.float8_e5m2),
        "b": torch.zeros(1).expand(3, 3),
        "c": torch.ones(2).to_sparse(),
    }
    return (
        *(saved(state), saved(masked), saved(odd), saved({"state_dict": state, "epoch": 3})),
        saved(
            {"a": {"net": {f"module.{name}": each for name, each in state.items()}}, "hparams": [Namespace(a=Path())]}
        ),
        saved(state, _use_new_zipfile_serialization=False),
    )


def torch_file(chance: Random, folder: Path) -> None:
    content = chance.choice(SEEDS["torch"])
    if content[:2] == b"PK" and chance.random() < 0.8:
        content = rezipped(content, lambda name, old: damaged(old, chance) if name.endswith(".pkl") else old)
    else:
        content = damaged(content, chance)
    (folder / "w.pt").write_bytes(content)
    read_whole(folder / "w.pt", chance)


def safetensors_file(chance: Random, folder: Path) -> None:
    content = chance.choice(SEEDS["safetensors"])
    if chance.random() < 0.7:
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.dumps(disturbed(json.loads(content[8:end]), chance)).encode()
        length = len(header) if chance.random() < 0.95 else chance.choice((0, 2**32, 2**63, len(header) + 1))
        content = length.to_bytes(8, "little") + header + content[end:]
    else:
        content = damaged(content, chance)
    (folder / "w.safetensors").write_bytes(content)
    read_whole(folder / "w.safetensors", chance)


def shards_folder(chance: Random, folder: Path) -> None:
    """An index whose names and files are disturbed, and shards of which one may be damaged."""
    tensors = list(safetensors.torch.load(SEEDS["safetensors"][-1]).items())
    parts = {"model-1.safetensors": dict(tensors[::2]), "model-2.safetensors": dict(tensors[1::2])}
    for file, part in parts.items():
        content = safetensors.torch.save(part)
        (folder / file).write_bytes(damaged(content, chance) if chance.random() < 0.1 else content)
    places = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {"total_size": 9}, "weight_map": places}
    text = json.dumps(disturbed(index, chance) if chance.random() < 0.7 else index).encode()
    (folder / "model.safetensors.index.json").write_bytes(damaged(text, chance) if chance.random() < 0.3 else text)
    read_whole(folder / "model.safetensors.index.json", chance)


def packed_file(chance: Random, folder: Path) -> None:
    """Without zeros; what its metadata say of the places is disturbed as well."""
    content = chance.choice(SEEDS["packed"])
    if chance.random() < 0.7:
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        if chance.random() < 0.8:
            metadata = header["__metadata__"]
            metadata[KEY] = json.dumps(disturbed(json.loads(metadata[KEY]), chance))
        else:
            header = disturbed(header, chance)
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + content[end:]
    else:
        content = damaged(content, chance)
    (folder / "w.safetensors").write_bytes(content)
    read_weights(folder / "w.safetensors")


def read_whole(path: Path, chance: Random) -> None:
    """As `inspect` reads it, as a network, or both."""
    if chance.random() < 0.5:
        json.dumps(inspect(path), allow_nan=False)
    else:
        load(path, Net)


def program_file(chance: Random, folder: Path) -> None:
    def change(name: str, old: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            return (
                json.dumps(disturbed(json.loads(old), chance)).encode()
                if chance.random() < 0.8
                else damaged(old, chance)
            )
        return damaged(old, chance) if chance.random() < 0.05 else old

    (content,) = SEEDS["program"]
    content = rezipped(content, change) if chance.random() < 0.7 else damaged(content, chance)
    (folder / "m.pt2").write_bytes(content)
    json.dumps(inspect(folder / "m.pt2"), allow_nan=False)


def onnx_file(chance: Random, folder: Path) -> None:
    (folder / "m.onnx").write_bytes(damaged(chance.choice(SEEDS["onnx"]), chance))
    json.dumps(inspect(folder / "m.onnx"), allow_nan=False)


def pickle_file(chance: Random, folder: Path) -> None:
    """Operations of pickle by chance, around weights as torch writes them: odd keys, calls, nests, references."""
    content = SEEDS["pickle"][0]
    state = content[:-1]  # without STOP
    made = bytearray(state if chance.random() < 0.7 else b"\x80\x02}")
    for _ in range(chance.choice((0, 1, 3, 10, 40))):
        made += chance.choice(PICKLED) * chance.choice((1, 1, 1, 2, 30))
        if chance.random() < 0.2:
            made += b"q%ch%c" % ((place := chance.randrange(4)), place)
    odd = chance.choice((b"s", b"u", b"b", b"", b"\x85R", b"e"))
    archive = rezipped(SEEDS["torch"][0], lambda name, old: bytes(made) + odd + b"." if name.endswith(".pkl") else old)
    (folder / "w.pt").write_bytes(archive)
    read_whole(folder / "w.pt", chance)


PICKLED = (
    *(b")", b"]", b"}", b"(", b"N", b"K\x07", b"\x85", b"\x86", b"\x87"),
    *(b"t", b"a", b"e", b"s", b"u", b"b", b"R", b"\x81"),
    *(b"X\x05\0\0\0items", b"X\x01\0\0\0k", b"G?\xf0\0\0\0\0\0\0", b"\x8a\x09" + (2**64).to_bytes(9, "little")),
    *(b"ccollections\nOrderedDict\n", b"ccollections\nCounter\n", b"c__builtin__\nset\n", b"c__builtin__\nbytearray\n"),
    *(b"ctorch\nFloatTensor\n", b"ctorch\nSize\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"c_codecs\nencode\n"),
    *(b"cargparse\nNamespace\n", b"cargparse\nNamespace\n)\x81", b"ccollections\ndefaultdict\n)R", b"cos\nsystem\n"),
    *(b"c__builtin__\ngetattr\n", b"c__builtin__\neval\nX\x03\0\0\0x()\x85R"),
    *(b"q\x00h\x00h\x00\x86", b"q\x01]h\x01ah\x01a", b")\x85\x85", b"ccollections\nOrderedDict\n)R"),
)


def functions_file(chance: Random, folder: Path) -> None:
    """An ONNX model whose functions call each other by chance."""
    names = [f"f{number}" for number in range(chance.choice((1, 3, 10, 40)))]
    made = []
    for number, name in enumerate(names):
        known = names[:number] if chance.random() < 0.97 else names
        calls = [
            (chance.choice(known), "own") if known and chance.random() < 0.7 else ("Relu", "")
            for _ in range(chance.choice((1, 2, 2, 3)))
        ]
        given = ["x", *(f"t{place}" for place in range(len(calls) - 1)), "y"]
        nodes = [
            helper.make_node(call, [given[place]], [given[place + 1]], domain=domain)
            for place, (call, domain) in enumerate(calls)
        ]
        made.append(helper.make_function("own", name, ["x"], ["y"], nodes, OPSETS))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(names[-1], ["x"], ["y"], domain="own")], "g", value[:1], value[1:])
    content = helper.make_model(graph, functions=made, opset_imports=OPSETS, ir_version=9).SerializeToString()
    (folder / "m.onnx").write_bytes(damaged(content, chance) if chance.random() < 0.2 else content)
    json.dumps(inspect(folder / "m.onnx"), allow_nan=False)


OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def listing_file(chance: Random, folder: Path) -> None:
    """A `.pt2` that lists the same entries again and again, with other sizes."""

    def change(name: str, old: bytes) -> bytes:
        if not name.endswith("model_weights_config.json"):
            return old
        config = json.loads(old)["config"]
        for number in range(chance.choice((1, 5, 300))):
            entry = json.loads(json.dumps(config[chance.choice(list(config))]))
            if chance.random() < 0.5:
                entry["tensor_meta"] = disturbed(entry["tensor_meta"], chance)
            config[f"{chance.choice(NASTY)}{number}"] = entry
        return json.dumps({"config": config}).encode()

    (folder / "m.pt2").write_bytes(rezipped(SEEDS["program"][0], change))
    json.dumps(inspect(folder / "m.pt2"), allow_nan=False)


def edits_text(chance: Random, folder: Path) -> None:
    content, text = chance.choice(SEEDS["edits"]), ""
    tensors = safetensors.torch.load(content)
    end = 8 + int.from_bytes(content[:8], "little")
    text = json.loads(content[8:end])["__metadata__"]["shape_edits"]
    if chance.random() < 0.9:
        edits = json.loads(text)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
            edits = disturbed(edits, chance)
        text = json.dumps(edits)
    else:
        text = damaged(text.encode(), chance).decode(errors="replace")
    (folder / "w.safetensors").write_bytes(safetensors.torch.save(tensors, {"shape_edits": text}))
    load(folder / "w.safetensors", Net)


def recipe_file(chance: Random, folder: Path) -> None:
    text = chance.choice(SEEDS["recipe"])
    if chance.random() < 0.5:
        lines = text.decode().splitlines()
        words = (
            *NASTY,
            "- ",
            "  ",
            "&a [*a]",
            "*a",
            "<<: *a",
            "!!python/object:os.system",
            "? ",
            ": ",
            "{",
            "]",
            "'",
            "1e-3",
        )
        for _ in range(chance.choice((1, 2, 3))):
            line = chance.randrange(len(lines))
            place = chance.randrange(len(lines[line]) + 1)
            lines[line] = chance.choice(
                (
                    lines[line][:place] + chance.choice((*words, str(chance.choice(NUMBERS)))) + lines[line][place:],
                    lines[line][:place],
                    chance.choice(lines),
                )
            )
        text = "\n".join(lines).encode()
    else:
        text = damaged(text, chance)
    (folder / "r.yaml").write_bytes(text)
    resolved_yaml(load_recipe(folder / "r.yaml"))


def change_of_a_recipe(chance: Random, folder: Path) -> None:
    values = {"seed": 3, "stages.0.sparsity": 0.5, "stages.0.target": {"nodes": ["a", "b"]}, "train.lr": 0.1, "": 1}
    values |= {
        "model": {"name": "autoencoder", "latent": 8},
        "model.latent": 8,
        "export.0": "pt2",
        "stages.1.x": [1, 2],
    }
    key = chance.choice(list(values))
    value = disturbed(values[key], chance) if chance.random() < 0.8 else values[key]
    text = f"{key}={json.dumps(value)}"
    load_recipe(
        "mnist_ae", [text if chance.random() < 0.7 else damaged(text.encode(), chance).decode(errors="replace")]
    )


def results_document(chance: Random, _: Path) -> None:
    """The strings of a document are anybody's; none may steer the terminal or become markup."""
    document = json.loads(SEEDS["results"][0])
    for key, owner in (("target", "stages"), ("name", "data"), ("cpu", "machine"), ("note", "data")):
        part = document[owner][0] if owner == "stages" else document[owner]
        part[key] = "".join(chance.choices((*NASTY, "x", " "), k=chance.randrange(5)))
    document["models"]["dense"]["metric"] = {chance.choice(NASTY) + "loss": chance.random()}
    for name in chance.sample(("dense", "masked", "slim"), chance.randrange(3)):
        document["models"][name].pop("latency_ms", None)
    card = model_card(document)
    lines = [line for line in card.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert all(char.isprintable() or char == "\n" for char in card)
    counts = dict.fromkeys(("entries", "zeros", "rows", "zero_rows", "columns", "zero_columns", "weights"), 1)
    found = {"name": "".join(chance.choices(NASTY, k=2)), "shape": [1, 1], **counts}
    console = Console(file=BytesIOText(), width=200)
    console.print(files.layers({"layers": [found]}))
    console.print(tables.stages(document))
    assert all(char.isprintable() or char in "\n\t" for char in console.file.text)  # type: ignore[attr-defined]


def page_of_results(chance: Random, folder: Path) -> None:
    """Whatever a results.json holds, the page has no other elements and attributes than a good one, and no script."""
    document = json.loads(SEEDS["page"][0])
    for _ in range(chance.randrange(1, 4)):
        document = disturbed(document, chance)
    file = folder / "results.json"
    text = json.dumps(document)
    file.write_bytes(damaged(text.encode(), chance) if chance.random() < 0.1 else text.encode())
    found = elements(page.render(page.read(file), file))
    assert found <= GOOD, sorted(found - GOOD)


def cell_of_a_sweep(chance: Random, folder: Path) -> None:
    """A file in the place of a finished cell is the result that was computed, to the last bit, or it is absent."""
    content, result = SEEDS["cell"]
    match chance.randrange(4):
        case 0:
            content = damaged(content, chance)
        case 1:  # spaces and the order of keys, which say nothing
            cell = json.loads(content)
            content = json.dumps(
                dict(chance.sample(list(cell.items()), len(cell))), indent=chance.randrange(4)
            ).encode()
        case 2:
            content = json.dumps(disturbed(json.loads(content), chance)).encode()
        case _:  # with a checksum that fits
            cell = disturbed({key: value for key, value in json.loads(content).items() if key != "sha256"}, chance)
            content = json.dumps(cell | {"sha256": checksum(cell)} if isinstance(cell, dict) else cell).encode()
            result = json.dumps(cell.get("result") if isinstance(cell, dict) else None).encode()
    (folder / "abc.json").write_bytes(content)
    found = Cells(folder).read([("abc", {"my_net": "f00d"})])
    if not found:
        raise InputError("there is no such cell")
    assert found == {"abc": json.loads(result)}


GOOD: set[str] = set()
"""Elements, and their attributes, of the page of the undamaged document and of such with all kinds of sections."""


def elements(text: str) -> set[str]:
    found = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.update({tag, *(f"{tag} {name}" for name, _ in attrs)})

    Parser().feed(text)
    return found


def npz_content(kind: str, chance: Random) -> bytes:
    """Bytes of the archive or of a member, what a member's header claims, and which members there are."""
    content = chance.choice(SEEDS[kind])
    if chance.random() < 0.4:
        content = damaged(content, chance)
    else:
        made = BytesIO()
        how = chance.choice(
            (zipfile.ZIP_STORED,) * 3 + (zipfile.ZIP_DEFLATED,) * 3 + (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        )
        with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(made, "w", how) as new:
            for name in old.namelist():
                part = claimed(old.read(name), chance) if chance.random() < 0.5 else old.read(name)
                odd = chance.choice((*NASTY[:-2], "images.npy")) if chance.random() < 0.05 else name
                for _ in range(chance.choice((1,) * 30 + (0, 2))):
                    new.writestr(odd, damaged(part, chance) if chance.random() < 0.1 else part)
        content = made.getvalue() if chance.random() < 0.8 else damaged(made.getvalue(), chance)
    return content


def npz_file(chance: Random, folder: Path) -> None:
    (folder / "a.npz").write_bytes(npz_content("npz", chance))
    assert from_npz(folder / "a.npz").count("train")


def array_file(chance: Random, folder: Path) -> None:
    """The same, read as arrays of any kind, by names of the file or by others."""
    for name in "ab":
        content = npz_content("arrays", chance) if chance.random() < 0.6 else chance.choice(SEEDS["arrays"])
        (folder / f"{name}.npz").write_bytes(content)
    names = chance.choice(
        (
            *(ArrayNames("inputs", "targets"),) * 3,
            ArrayNames("inputs", "targets", "lengths"),
            ArrayNames(("inputs", "mask"), chance.choice(("targets", "lengths", None))),
            ArrayNames(chance.choice((*NASTY, "mask", "lengths")), chance.choice((*NASTY, "inputs"))),
        )
    )
    found = from_arrays(
        folder / "a.npz",
        folder / "b.npz" if chance.random() < 0.2 else None,
        names,
        normalise=chance.choice(("dataset", "none")),
        validation=chance.choice((None, None, 0.3, 1e-9, 0.999, folder / "b.npz")),
        train=chance.choice((None, None, 1, 5, 2**31 - 1)),
    )
    require_usable(found)


def require_usable(found: ArrayDataset) -> None:
    """All numbers are finite, and batches can be drawn."""
    for samples in (found.train, found.test, found.validation):
        for tensor in samples.tensors if samples else ():
            assert tensor.isfinite().all()
    json.dumps(found.preparation.described(), allow_nan=False)
    given, _ = next(iter(found.batches("test", 7, "reconstruct")()))
    assert given.rows == min(7, found.count("test") or 0)


def table_settings(chance: Random, names: list[str]) -> dict[str, Any]:
    """What a recipe may say of a table with columns of these names, mostly in place."""
    odd = [*names, *NASTY]

    def some(count: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(chance.choice(names if chance.random() < 0.97 else odd) for _ in range(count)))

    target = some(chance.choice((0, 1, 1, 1, 1, 2)))
    categorical = some(chance.choice((0, 1))) if chance.random() < 0.3 else ("kind",)
    settings = TableSettings(
        target=target,
        categorical=tuple(name for name in categorical if name not in target or chance.random() < 0.02),
        drop=some(1) if chance.random() < 0.2 else (),
        impute=chance.choice((None, "median")),
        unknown=chance.choice(("error", "zero")),
        embed=chance.random() < 0.3,
        classes=chance.choice((None, None, None, True, False)),
        normalise=chance.choice(("dataset", "none")),
        normalise_target=chance.random() < 0.3,
    )
    return {
        "settings": settings,
        "validation": chance.choice((None, None, 0.3, 1e-9, 0.999)),
        "train": chance.choice((None, None, None, None, None, 1, 20, 2**31 - 1)),
        "limit": chance.choice((10**9, 200)),
    }


def read_table(chance: Random, file: TableFile, other: TableFile, names: list[str]) -> None:
    keys = table_settings(chance, names)
    test_file = other if chance.random() < 0.3 else None
    if chance.random() < 0.3:
        windows = Windows(*(chance.choice((1, 1, 2, 2, 3, 3, 8, 8, 2**31 - 1)) for _ in range(3)))
        require_usable(from_series(file, test_file, windows, **keys))
    else:
        require_usable(from_table(file, test_file, **keys))


def csv_file(chance: Random, folder: Path) -> None:
    """Bytes, fields, or rows of a csv are changed; separators, encodings and what the columns are for as well."""
    options: dict[str, Any] = {}
    for name in "ab":
        rows = [list(row) for row in CSV_ROWS[: chance.choice((0, 2, *[40] * 8))]]
        for _ in range(chance.choice((0, 0, 0, 1, 1, 3))):
            row = chance.choice(rows or [[]])
            place = chance.randrange(len(row) + 1)
            row[place : place + chance.choice((1, 1, 1, 1, 0, 2))] = [
                chance.choice((*NASTY, *map(str, NUMBERS), "inf", "nan", "NA", "1_0", "0x1", "2020-01-01", "1,5", "é"))
            ]
        encoding = chance.choice(("utf-8",) * 5 + ("utf-16", "cp1252", "utf-7"))
        text = "\n".join([",".join(CSV_NAMES), *(",".join(row) for row in rows)])
        content = text.encode(encoding, "replace")
        (folder / f"{name}.csv").write_bytes(damaged(content, chance) if chance.random() < 0.3 else content)
        if name == "a" and chance.random() < 0.9:
            options = {"encoding": encoding}
    if chance.random() < 0.1:
        options["separator"] = chance.choice((";", "\t", " ", "1", "é", "'"))
    if chance.random() < 0.05:
        options["encoding"] = chance.choice((*NASTY, "rot13", "idna", "punycode", "unicode_escape", "utf-32", "mbcs"))
    if chance.random() < 0.1:
        options["columns"] = CSV_NAMES[: chance.choice((1, 5))]
    file, other = (CsvFile(folder / f"{name}.csv", **options) for name in "ab")
    read_table(chance, file, other, list(CSV_NAMES))


def parquet_file(chance: Random, folder: Path) -> None:
    for name in "ab":
        content = chance.choice(SEEDS["parquet"])
        (folder / f"{name}.parquet").write_bytes(damaged(content, chance) if chance.random() < 0.6 else content)
    read_table(chance, ParquetFile(folder / "a.parquet"), ParquetFile(folder / "b.parquet"), list(CSV_NAMES))


CSV_NAMES = ("age", "kind", "size", "ill", "note")
CSV_ROWS = tuple(
    (str(row % 7), ("a", "b", "c")[row % 3], f"{row * 0.37:.2f}", str(row % 2), str(row * row)) for row in range(40)
)


def claimed(member: bytes, chance: Random) -> bytes:
    """A .npy file with another shape, type or order in its header."""
    start = 10 + int.from_bytes(member[8:10], "little")
    header = ast.literal_eval(member[10:start].decode("latin-1"))
    match chance.randrange(4):
        case 0:
            header["shape"] = tuple(chance.choice(NUMBERS) for _ in range(chance.randrange(6)))
        case 1:
            header["descr"] = chance.choice(
                ("|O", "<f8", ">i8", "<u8", "|S0", "|V0", "<U9", "|b1", "<M8[s]", [("a", "|u1")])
            )
        case 2:
            header["fortran_order"] = chance.choice((True, 1, None, "x"))
        case _:
            header = disturbed({key: list(value) if key == "shape" else value for key, value in header.items()}, chance)
    text = repr(header).encode("utf-8", "replace") + b"\n"
    version = bytes((chance.choice((1, 1, 1, 1, 2, 3, 9)), 0))
    return member[:6] + version + len(text).to_bytes(2, "little") + text + member[start:]


def image_folder(chance: Random, folder: Path) -> None:
    """Two classes of images, some of them damaged or of other formats, and now and then what is no file; with parts
    or without, and prepared in some way or not."""
    root = folder / "pics"
    shutil.rmtree(root, ignore_errors=True)
    images, damages = SEEDS["folder"], chance.choice((0, 0, 0.1, 0.5))
    grey = chance.randrange(2)
    mixed = chance.random() < 0.3
    parts = chance.choice((*[("",)] * 4, ("train", "test"), ("train", "val"), ("train", "test", "valid"), ("train",)))
    for part in parts:
        for name in ("a", "b", *(["c/d"] if chance.random() < 0.1 / len(parts) else [])):
            (root / part / name).mkdir(parents=True)
            for number in range(chance.choice((2, 2, 3, 1))):
                ours = images[grey::2] if not mixed else images
                content = ours[chance.randrange(len(ours))]
                if chance.random() < damages:
                    content = chance.choice((damaged(content, chance), chance.choice(images), *OTHERS))
                (root / part / name / f"{number}").write_bytes(content)
    if chance.random() < 0.2:
        place = (
            root / chance.choice(("", "a", "b", "val")) / chance.choice(("x.png", "0", ".x", "\x1b[2J", "é", "loop"))
        )
        with suppress(FileExistsError, FileNotFoundError):
            match chance.randrange(4):
                case 0:
                    place.symlink_to(chance.choice(("..", ".", "0", "/dev/zero", "/etc/passwd", "../b", "x" * 200)))
                case 1:
                    os.mkfifo(place)
                case 2:
                    place.mkdir()
                case _:
                    place.write_bytes(chance.randbytes(chance.choice((0, 1, 30))))
    found = from_folder(
        root,
        workers=0,
        stream=chance.choice((None, True)),
        options=image_options(chance) if mixed or chance.random() < 0.5 else ImageOptions(),
        validation=chance.choice(
            (None, None, None, 0.3, 1e-9, 0.999, root / "val", folder / "absent", root / "a" / "0")
        ),
    )
    assert found.count("test")
    json.dumps(found.preparation.described(), allow_nan=False)
    (inputs, _) = next(iter(training_batches(found, 3, "classify")(torch.Generator())))
    assert inputs.isfinite().all()
    assert inputs.shape[1:] == found.shape


def image_options(chance: Random) -> ImageOptions:
    sizes = (*[(4, 7)] * 4, *[(8, 8)] * 3, 1, 5, 30, None, 16384, (16384, 2))
    scales = (*["dataset"] * 3, "none", "none", "imagenet", Statistics((0.5,), (0.5,)), Statistics((0.5, 0), (1.0,)))
    return ImageOptions(
        upright=chance.random() < 0.5,
        channels=chance.choice(("grey", "rgb")),
        resize=chance.choice(sizes),
        crop=chance.choice((*[None] * 5, 1, 4, (3, 2), 16384)),
        normalise=chance.choice(scales),
        augment=chance.choice(((), (), ("flip",), ("crop", "erase"), ("trivial",), ("rotate", "color"))),
    )


OTHERS = (
    b"%!PS-Adobe-3.0\n",
    b"%PDF-1.4\n",
    b"P5 2 2 255\n....",
    b"<svg/>",
    b"",
    b"BM",
    b"GIF89a",
    b"II*\0",
    b"\xff\xd8\xff",
)
"""What is found among images, whole or as a beginning only."""


def text_file(chance: Random, folder: Path) -> None:
    """A .jsonl, .csv or .txt file, some of whose bytes, or of the values on its lines, are others."""
    suffix, content = chance.choice(("jsonl", "csv", "txt")), b""
    if suffix == "jsonl":
        rows: list[Any] = [json.loads(line) for line in SEEDS["text"][0].splitlines()]
        for _ in range(chance.choice((0, 0, 1, 1, 3))):
            rows = disturbed(rows, chance) if chance.random() < 0.9 else rows[:1]
            rows = rows if isinstance(rows, list) else [rows]
        content = "\n".join(json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in rows).encode(
            errors="replace"
        )
    else:
        content = SEEDS["text"][1 if suffix == "csv" else 2]
    if chance.random() < 0.5:
        content = damaged(content, chance)
    path = folder / f"a.{suffix}"
    path.write_bytes(content)
    columns = Columns(target=chance.choice(("label", "label", None)))
    tokenizer, length = chance.choice(("bytes", "chars")), chance.choice((1, 2, 8, 100))
    data = from_text(path, tokenizer=tokenizer, length=length, columns=columns)
    assert isinstance(data.preparation, TextPreparation)
    json.dumps(data.preparation.described(), allow_nan=False).encode()
    for given, target in data.batches("test", 5, "classify")():
        ids = given.tensors[0]
        assert len(ids) == len(target)
        assert 0 <= int(ids.min()) <= int(ids.max()) < data.preparation.tokenization.size


def tokenizer_file(chance: Random, folder: Path) -> None:
    """A tokenizer.json of words, pieces of words, or pairs of bytes, that was changed somewhere."""
    content = chance.choice(SEEDS["tokenizer"])
    if chance.random() < 0.7:
        value = json.loads(content)
        for _ in range(chance.choice((1, 1, 2))):
            value = disturbed(value, chance)
        content = json.dumps(value).encode(errors="replace")
    else:
        content = damaged(content, chance)
    (folder / "tokenizer.json").write_bytes(content)
    tokens = tokenization(str(folder / "tokenizer.json"))
    texts = ["one two", "", "\0 \ud800", "é" * 50, chance.choice(NASTY)]
    for most in (None, chance.choice((1, 4, 60))):
        found = tokens.encode(texts, most)
        assert all(0 <= number < tokens.size for one in found for number in one.ids)
        assert most is None or all(len(one.ids) <= most for one in found)
        tokens.decode(found[0].ids.tolist())
    assert 0 <= tokens.padding < tokens.size
    json.dumps(tokens.described(), allow_nan=False)


class BytesIOText:
    """What a console writes to: no terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


TARGETS: dict[str, Callable[[Random, Path], None]] = {
    "torch": torch_file,
    "pickle": pickle_file,
    "functions": functions_file,
    "listing": listing_file,
    "safetensors": safetensors_file,
    "shards": shards_folder,
    "packed": packed_file,
    "program": program_file,
    "onnx": onnx_file,
    "edits": edits_text,
    "recipe": recipe_file,
    "change": change_of_a_recipe,
    "results": results_document,
    "page": page_of_results,
    "npz": npz_file,
    "arrays": array_file,
    "csv": csv_file,
    "parquet": parquet_file,
    "folder": image_folder,
    "cell": cell_of_a_sweep,
    "text": text_file,
    "tokenizer": tokenizer_file,
}

SEEDS: dict[str, tuple[bytes, ...]] = {}


@pytest.fixture(scope="module", autouse=True)
def seeds() -> None:
    torch.manual_seed(0)
    SEEDS["torch"] = torch_seeds()
    with zipfile.ZipFile(BytesIO(SEEDS["torch"][0])) as archive:
        SEEDS["pickle"] = tuple(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    model = Net().eval()
    with torch.no_grad():
        model[5].weight[4:] = 0
        model[5].bias[4:] = 0
        model[7].weight[1] = 0
        model[3].weight[:, :] *= torch.tensor([1.0, 0])[None, :, None, None]
    small = slim(model, torch.randn(2, 1, 4, 4))
    own = edits_to_json(small.shape_edits)
    inputs = [ShapeEdit("input", "float32", index, size, size) for index, size in enumerate((2, 1, 4, 4))]
    taken = [ShapeEdit("bottleneck", "5", 0, 64, 64), ShapeEdit("tensor", "5.axes.weight", 0, 64, 3)]
    states = small.state_dict(), Net().state_dict(), apply_edits(Net(), taken).state_dict()
    SEEDS["edits"] = tuple(
        safetensors.torch.save(state, {"shape_edits": text})
        for state, text in zip(states, (own, edits_to_json(inputs), edits_to_json(taken)), strict=True)
    )
    SEEDS["safetensors"] = (*SEEDS["edits"], safetensors.torch.save(Net().state_dict(), {"recipe": "{}"}))
    SEEDS["packed"] = packed_seeds()
    program = BytesIO()
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),)), program)
    SEEDS["program"] = (program.getvalue(),)
    SEEDS["onnx"] = onnx_seeds()
    SEEDS["npz"] = npz_seeds()
    SEEDS["arrays"] = array_seeds()
    SEEDS["parquet"] = parquet_seeds()
    SEEDS["folder"] = image_seeds()
    SEEDS["text"] = text_seeds()
    SEEDS["tokenizer"] = tokenizer_seeds()
    SEEDS["recipe"] = tuple(shipped_text(name).encode() for name, _ in shipped())
    SEEDS["cell"] = cell_seeds()
    real = Path(__file__).with_name("results.json")  # as `compress apply` has left it
    SEEDS["results"] = SEEDS["page"] = (real.read_bytes(),)
    GOOD.update(elements(page.render(page.read(real), real)))


def packed_seeds() -> tuple[bytes, ...]:
    tensors = {str(share): torch.randn(60, 40) * (torch.rand(60, 40) > share) + 0.0 for share in (0.3, 0.7, 0.98)}
    entries, text = packed(tensors)
    return (safetensors.torch.save(entries, {KEY: text}),)


def npz_seeds() -> tuple[bytes, ...]:
    pixels, labels = (
        np.arange(18 * count, dtype=np.uint8).reshape(18, *shape) for count, shape in ((12, (3, 4)), (1, ()))
    )
    found = []
    for save, images in (
        (np.savez, pixels),
        (np.savez_compressed, np.asfortranarray(pixels)),
        (np.savez, pixels[:, None]),
    ):
        stream = BytesIO()
        save(stream, images=images, labels=labels % 3)
        found.append(stream.getvalue())
    return tuple(found)


def text_seeds() -> tuple[bytes, ...]:
    rows = [{"text": f"text {number} é", "label": "ab"[number % 2]} for number in range(14)]
    table = "\r\n".join(["text,label", *(f'"{row["text"]}, x",{row["label"]}' for row in rows)])
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return lines.encode(), table.encode(), "\n".join(row["text"] for row in rows).encode()


def tokenizer_seeds() -> tuple[bytes, ...]:
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    except ImportError:
        return ()
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "one": 4, "two": 5, "##e": 6, "o": 7}
    wordlevel = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    wordlevel.pre_tokenizer, wordlevel.normalizer = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    wordlevel.enable_padding(pad_id=0, pad_token="[PAD]")
    wordpiece = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    wordpiece.decoder = decoders.WordPiece()
    pairs = Tokenizer(models.BPE({"o": 0, "n": 1, "e": 2, "on": 3, "one": 4, "Ġ": 5}, [("o", "n"), ("on", "e")]))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    pairs.add_special_tokens(["<|endoftext|>"])
    return tuple(one.to_str().encode() for one in (wordlevel, wordpiece, pairs))


def array_seeds() -> tuple[bytes, ...]:
    series = np.arange(18 * 4 * 3, dtype=np.float64).reshape(18, 4, 3) / 7
    labels, lengths, found = np.arange(18) % 3, np.arange(18) % 4 + 1, []
    for inputs in (series, series.astype(np.float16)[..., 0], np.arange(72, dtype=np.uint8).reshape(18, 4)):
        for targets in (labels, inputs, labels[:, None] > 1):
            stream = BytesIO()
            np.savez(stream, inputs=inputs, targets=targets, lengths=lengths, mask=inputs > 3)
            found.append(stream.getvalue())
    return tuple(found)


def parquet_seeds() -> tuple[bytes, ...]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return (b"PAR1",)
    columns = dict(zip(CSV_NAMES, zip(*CSV_ROWS, strict=True), strict=True))
    numbers = {name: list(map(float, columns[name])) for name in ("age", "size", "note")}
    table = pyarrow.table({**columns, **numbers, "ill": [word == "1" for word in columns["ill"]]})
    found = []
    for how in ({"compression": "none"}, {"compression": "snappy"}, {"use_dictionary": False, "row_group_size": 7}):
        stream = BytesIO()
        parquet.write_table(table, stream, **how)
        found.append(stream.getvalue())
    return tuple(found)


def image_seeds() -> tuple[bytes, ...]:
    """Each kind in colour and in grey, in turns, as far as the kind has grey."""
    colour = np.arange(9 * 8 * 3, dtype=np.uint8).reshape(9, 8, 3)
    ways: tuple[tuple[str, dict[str, Any]], ...] = (
        *(
            ("PNG", {}),
            ("JPEG", {"progressive": True}),
            ("BMP", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("TIFF", {}),
        ),
        *(("GIF", {"save_all": True}), ("WEBP", {"lossless": True})),
    )
    found = []
    for kind, how in ways:
        for image in (Image.fromarray(colour), Image.fromarray(colour[:, :, 0])):
            stream = BytesIO()
            image.save(stream, kind, **how)
            found.append(stream.getvalue())
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        for turn, image in ((6, Image.fromarray(colour)), (8, Image.fromarray(colour[:, :, 0]))):
            exif, stream = image.getexif(), BytesIO()
            exif[0x0112] = turn
            exif[0x010F] = "maker"
            image.save(stream, kind, exif=exif)
            found.append(stream.getvalue())
    return tuple(found)


def onnx_seeds() -> tuple[bytes, ...]:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 3], [1.0, 0, 2, 3, 4, 5])
    outside = helper.make_tensor("w", TensorProto.FLOAT, [2, 3], bytes(24), raw=True)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.data"), ("offset", "0"), ("length", "24")):
        entry = outside.external_data.add()
        entry.key, entry.value = key, value
    made = []
    for tensor in (weight, outside):
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        value = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 2), ("y", 3))
        ]
        graph = helper.make_graph([node], "g", value[:1], value[1:], [tensor])
        made.append(helper.make_model(graph).SerializeToString())
    assert len(onnx.load_from_string(made[0]).graph.initializer) == 1
    return tuple(made)


def cell_seeds() -> tuple[bytes, bytes]:
    """The file of a finished cell, and the result in it."""
    metric = {"loss": 0.35463475153876917, "accuracy": 0.9149}
    curve = [{"sparsity": share / 4, "left": 8 - 2 * share, "metric": metric} for share in range(4)]
    result = {"dense": metric, "curve": curve, "steps": 782, "diverged": None, "confusion": [[4779, 0], [3, 5500]]}
    with TemporaryDirectory() as folder:
        Cells(Path(folder)).write("abc", {"my_net": "f00d"}, result)
        return Path(folder, "abc.json").read_bytes(), json.dumps(result).encode()


@dataclass(frozen=True)
class Outcome:
    read: bool
    seconds: float


def tried(target: str, number: int, seed: int, folder: Path) -> Outcome:
    """Whether the input was read; fails where it led to anything but a result or an error of this package."""
    started = time.monotonic()
    read = False
    try:
        TARGETS[target](Random(f"{seed} {target} {number}"), folder)
        read = True
    except CompressError as error:
        if not str(error).strip():
            raise AssertionError(f"{target}, seed {seed}, input {number}: an error without a word") from error
    except (Exception, RecursionError) as error:
        raise AssertionError(f"{target}, seed {seed}, input {number}: {type(error).__name__}: {error}") from error
    seconds = time.monotonic() - started
    assert seconds < SECONDS, f"{target}, seed {seed}, input {number} took {seconds:.0f} s"
    return Outcome(read, seconds)


@contextmanager
def bounded_memory() -> Iterator[Callable[[], int]]:
    """Fails where the process has grown by too much; what is given tells by how many bytes it has."""
    before = peak()
    yield lambda: peak() - before
    assert peak() - before < BYTES, f"the memory grew by {peak() - before:,} bytes"


def peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def require_seeds(target: str) -> None:
    if not SEEDS.get(target, True):
        pytest.skip("the package tokenizers is not installed")


@pytest.mark.filterwarnings("ignore")  # of torch, about its own rarer types of tensor
@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.extended) if name == "onnx" else name for name in TARGETS]
)
def test_some_strange_files(target: str, tmp_path: Path) -> None:
    require_seeds(target)
    # ONNX models are read in processes of their own, and recipes by a slow reader.
    count = SHORT // {"recipe": 5, "change": 5, "onnx": 2, "functions": 10}.get(target, 1)
    with bounded_memory():
        read = [tried(target, number, 0, tmp_path).read for number in range(count)]
    # Mutations that always spoil a file, or never, would try nothing.
    assert any(read)
    assert not all(read) or target == "results"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
def test_many_strange_files(
    target: str, tmp_path: Path, measured: Callable[[str, dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_seeds(target)
    if target == "functions":  # without a child process for each, as where there is no fork: ten times as fast
        monkeypatch.delattr(os, "fork")
    seed = int(os.environ.get("COMPRESS_FUZZ_SEED", time.time() // 86400))
    with bounded_memory() as grown:
        found = [tried(target, number, seed, tmp_path) for number in range(LONG[target])]
        figures = {"inputs": len(found), "read": sum(each.read for each in found), "seed": seed}
        measured("fuzz", {target: {**figures, "slowest": max(each.seconds for each in found), "grown": grown()}})
