import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.errors import CheckpointError
from compress.export.program_file import pt2
from compress.export.program_reading import _TYPES, program_weights

WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
GRAPH = "models/model.json"

Contents = dict[str, bytes]


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.victim}",)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()
    pt2(model, tmp_path / "m.pt2", torch.zeros(1, 6))
    return tmp_path / "m.pt2"


def changed(path: Path, change: Callable[[Contents], None], kind: int = zipfile.ZIP_STORED) -> Path:
    """The archive with other contents, by name without the archive's own."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        contents = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in contents.items():
            archive.writestr(f"{root}/{name}", content)
    return path


def edited(name: str, edit: Callable[[Any], None]) -> Callable[[Contents], None]:
    """A change of the JSON document `name`."""

    def change(contents: Contents) -> None:
        document = json.loads(contents[name])
        edit(document)
        contents[name] = json.dumps(document).encode()

    return change


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def pickled_inputs(contents: Contents, victim: Path) -> None:
    contents["data/sample_inputs/model.pt"] = saved((Hostile(victim),))


def opaque_constant(contents: Contents, victim: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    contents[CONSTANTS] = json.dumps({"config": {"x": entry}}).encode()
    contents["data/constants/opaque_obj_0"] = pickle.dumps(Hostile(victim))


def expression(contents: Contents, victim: Path) -> None:
    def evil(value: Any) -> None:
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            evil(inner)
        if isinstance(value, dict) and "expr_str" in value:
            value["expr_str"] = f"__import__('os').system('touch {victim}')"

    edited(GRAPH, evil)(contents)


def pickled_weight(contents: Contents, victim: Path) -> None:
    edited(WEIGHTS, lambda found: found["config"]["0.weight"].update(use_pickle=True))(contents)
    contents["data/weights/weight_0"] = saved(Hostile(victim))


@pytest.mark.parametrize("attack", [pickled_inputs, opaque_constant, expression, pickled_weight])
def test_what_torch_would_run_is_not_run(
    program: Path, tmp_path: Path, attack: Callable[[Contents, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    victim = tmp_path / "executed"
    changed(program, lambda contents: attack(contents, victim))
    if attack is pickled_weight:
        with pytest.raises(CheckpointError, match=r"m\.pt2 has '0\.weight' as a pickle, which could run any code"):
            program_weights(program)
    else:
        assert "0.weight" in program_weights(program)
    assert not victim.exists()
    with contextlib.suppress(Exception):
        torch.export.load(program)
    if "Unsupported constant type: opaque_obj" in caplog.text:
        pytest.skip("this torch is older than constants of any type")
    assert victim.exists(), "the payload is alive: torch's own loader runs it"


def test_the_values_are_those_that_torch_reads(program: Path) -> None:
    expected = torch.export.load(program).state_dict
    found = program_weights(program)
    assert found.keys() == expected.keys()
    assert len(found) == 7
    assert all(torch.equal(found[name], expected[name]) and found[name].dtype == expected[name].dtype for name in found)


def test_views_of_one_memory(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4))
            self.register_buffer("part", self.weight.detach().T[1:3])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight + self.part.sum()

    torch.export.save(torch.export.export(Tied(), (torch.zeros(2, 3),)), tmp_path / "m.pt2")
    found = program_weights(tmp_path / "m.pt2")
    assert torch.equal(found["part"], torch.arange(12.0).reshape(3, 4).T[1:3])


def test_the_types_are_those_of_the_format() -> None:
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    known = {int(number): dtype for number, dtype in _SERIALIZE_TO_TORCH_DTYPE.items()}
    plain = {number: dtype for number, dtype in known.items() if dtype != torch.complex32}
    assert {number: _TYPES.get(number) for number in plain} == plain  # an older torch knows fewer


def size_of(key: str, value: Any) -> Callable[[Contents], None]:
    return edited(WEIGHTS, lambda found: found["config"]["0.weight"]["tensor_meta"].update({key: value}))


@pytest.mark.parametrize(
    "change",
    [
        size_of("sizes", [{"as_int": 2**40}, {"as_int": 6}]),
        size_of("sizes", [{"as_int": -1}, {"as_int": 6}]),
        size_of("sizes", [{"as_expr": {"expr_str": "exit()"}}, {"as_int": 6}]),
        size_of("storage_offset", {"as_int": 1}),
        size_of("storage_offset", {"as_int": -1}),
        size_of("strides", [{"as_int": 2**62}, {"as_int": 1}]),
        size_of("dtype", 8),
        size_of("dtype", 99),
        size_of("layout", 1),
        edited(WEIGHTS, lambda found: found["config"]["0.weight"].update(path_name="../../m.pt2")),
        edited(WEIGHTS, lambda found: found.update(config=[1])),
        lambda contents: contents.update({WEIGHTS: b"[" * 10_000}),
        lambda contents: contents.update({WEIGHTS: b"\xff"}),
        lambda contents: contents.update(archive_format=b"pt9"),
        lambda contents: contents.pop(WEIGHTS) and None,
        lambda contents: contents.clear(),
    ],
)
def test_a_program_that_lies_is_refused(program: Path, change: Callable[[Contents], None]) -> None:
    with pytest.raises(CheckpointError, match=r"m\.pt2"):
        program_weights(changed(program, change))


def test_memory_that_is_repeated_without_end(program: Path) -> None:
    def repeat(contents: Contents) -> None:
        size_of("sizes", [{"as_int": 10**5}, {"as_int": 10**5}])(contents)
        size_of("strides", [{"as_int": 0}, {"as_int": 0}])(contents)

    with pytest.raises(CheckpointError, match="repeat the same memory"):
        program_weights(changed(program, repeat))


def test_an_archive_that_unpacks_to_more_than_it_is(program: Path) -> None:
    changed(program, lambda contents: contents.update({"data/weights/weight_0": bytes(10**7)}), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="unpacks to 10,"):
        program_weights(program)


def test_an_entry_that_is_listed_often_is_read_once(program: Path) -> None:
    def often(document: Any) -> None:
        entry = document["config"]["0.weight"]
        document["config"] |= {f"again{number}": entry for number in range(50)}

    found = program_weights(changed(program, edited(WEIGHTS, often)))
    assert len({tensor.data_ptr() for name, tensor in found.items() if name.startswith(("again", "0.weight"))}) == 1
    assert torch.equal(found["again7"], found["0.weight"])


@pytest.mark.parametrize(("count", "text"), [(3_000, "its tensors claim"), (100_001, "lists its weights in|the most")])
def test_an_entry_that_is_listed_thousands_of_times(program: Path, count: int, text: str) -> None:
    def often(document: Any) -> None:
        entry = document["config"]["0.weight"]
        document["config"] |= {f"again{number}": entry for number in range(count)}

    def without_text(contents: Contents) -> None:
        edited(WEIGHTS, often)(contents)
        if count < 10**5:  # so that the listing does not make the file large enough
            contents[WEIGHTS] = contents[WEIGHTS].replace(b" ", b"")
            large = bytes(10**5)
            contents["data/weights/" + json.loads(contents[WEIGHTS])["config"]["0.weight"]["path_name"]] = large
            document = json.loads(contents[WEIGHTS])
            for entry in document["config"].values():
                entry["tensor_meta"]["sizes"] = [{"as_int": 25_000}]
                entry["tensor_meta"]["strides"] = [{"as_int": 1}]
            document["config"] = {name: entry for name, entry in document["config"].items() if "again" in name}
            contents[WEIGHTS] = json.dumps(document).encode()

    with pytest.raises(CheckpointError, match=text):
        program_weights(changed(program, without_text))
