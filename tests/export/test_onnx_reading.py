import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import InputError
from compress.export.contents import inspect
from compress.export.latency import measure
from compress.export.onnx_reading import read_onnx
from compress.run.benching import bench

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def external(location: str, offset: int = 0, length: int = 24) -> TensorProto:
    """A tensor whose values are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def write(path: Path, tensor: TensorProto, where: str = "initializer") -> Path:
    """A model that multiplies by `tensor`: an initializer, an attribute, or an initializer in a branch."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 2), ("y", 3)))
    multiply, initializers = [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor]
    if where == "attribute":
        multiply, initializers = [helper.make_node("Constant", [], ["w"], value=tensor), *multiply], []
    if where == "branch":
        graphs = [
            helper.make_graph([helper.make_node("MatMul", ["x", "w"], [name])], name, [], [y], [tensor])
            for name in ("yes", "no")
        ]
        for graph in graphs:
            graph.output[0].name = graph.node[0].output[0]
        multiply = [helper.make_node("If", ["c"], ["y"], then_branch=graphs[0], else_branch=graphs[1])]
        initializers = [numpy_helper.from_array(np.array(True), "c")]
    model = helper.make_model(
        helper.make_graph(multiply, "g", [x], [y], initializers),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("where", ["initializer", "attribute", "branch"])
@pytest.mark.parametrize("location", ["../secret", "below/../../secret", "ABSOLUTE", "link", "linked/secret"])
def test_data_outside_of_the_folder_is_not_read(tmp_path: Path, location: str, where: str) -> None:
    folder = tmp_path / "model"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    location = str(tmp_path / "secret") if location == "ABSOLUTE" else location
    path = write(folder / "m.onnx", external(location), where)
    for read in (read_onnx, inspect, lambda file: measure({"m": file}, batch_sizes=[1], seconds=0.1)):
        with pytest.raises(InputError, match=r"m\.onnx: the tensor 'w' lies in '.*', outside of the model's folder"):
            read(path)


def test_a_bare_name_has_a_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    write(Path("m.onnx"), external("../secret"))
    with pytest.raises(InputError, match="outside of the model's folder"):
        inspect("m.onnx")


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 2**40), (8, 24), (2**62, 2**62), (-8, 24)], ids=["huge", "after", "overflow", "negative"]
)
def test_data_longer_than_its_file(tmp_path: Path, offset: int, length: int) -> None:
    (tmp_path / "data").write_bytes(VALUES.tobytes())
    with pytest.raises(InputError, match=r"m\.onnx"):
        read_onnx(write(tmp_path / "m.onnx", external("data", offset, length)))


def test_data_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is not a file"):
        read_onnx(write(tmp_path / "m.onnx", external("absent")))
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    with pytest.raises(InputError, match="which is not a file"):
        read_onnx(write(tmp_path / "m.onnx", external("pipe")))


def test_data_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "data").write_bytes(bytes(4) + VALUES.tobytes())
    (tmp_path / "link").symlink_to(tmp_path / "below" / "data")
    for location in ("below/data", "link"):
        found = inspect(write(tmp_path / "m.onnx", external(location, 4)))
        assert (found["entries"], found["zeros"]) == (6, 1)


def test_names_that_are_no_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "m.onnx", numpy_helper.from_array(VALUES, "wwwww"))
    path.write_bytes(path.read_bytes().replace(b"wwwww", b"w\xff\x1b[2"))
    with pytest.raises(InputError, match="cannot be read as an ONNX model"):
        inspect(path)
    model = onnx.load(write(path, numpy_helper.from_array(VALUES, "w")))
    helper.set_model_props(model, {"note": "vvvvv"})
    model.graph.node[0].input[0] = "\x1b[2J"  # onnx_ir warns of it, by that name
    path.write_bytes(model.SerializeToString().replace(b"vvvvv", b"v\xff\x1b[2"))
    assert inspect(path)["metadata"] == {"note": "v\\xff\x1b[2"}
    assert capfd.readouterr() == ("", "")


def test_a_tensor_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(VALUES, "w")
    tensor.dims[0] = 2**40
    with pytest.raises(InputError, match=r"m\.onnx: the tensor w cannot be read"):
        inspect(write(tmp_path / "m.onnx", tensor))


def function(name: str, calls: list[tuple[str, str]]) -> onnx.FunctionProto:
    """`name` calls one operator or function, given with its domain, after the other."""
    names = ["x", *(f"t{number}" for number in range(len(calls) - 1)), "y"]
    nodes = [helper.make_node(op, [names[n]], [names[n + 1]], domain=domain) for n, (op, domain) in enumerate(calls)]
    return helper.make_function("own", name, ["x"], ["y"], nodes, OPSETS)


OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def of_functions(path: Path, functions: list[onnx.FunctionProto]) -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(functions[-1].name, ["x"], ["y"], domain="own")], "g", *zip(value))
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=9), path)
    return path


@pytest.mark.parametrize("times", [2, 3, 7])
def test_functions_that_stand_for_too_much(tmp_path: Path, times: int) -> None:
    functions = [function("f0", [("Relu", "")])]
    functions += [function(f"f{n}", [(f"f{n - 1}", "own")] * times) for n in range(1, 30)]
    path = of_functions(tmp_path / "m.onnx", functions)
    for look in (read_onnx, inspect, lambda file: bench([file])):
        with pytest.raises(InputError, match=r"m\.onnx has the function 'f\d+', which stands for more than 100,000"):
            look(path)


def test_functions_that_call_each_other(tmp_path: Path) -> None:
    functions = [function("f", [("g", "own")]), function("g", [("f", "own")])]
    with pytest.raises(InputError, match=r"m\.onnx cannot be read as an ONNX model: .*cycle"):
        inspect(of_functions(tmp_path / "m.onnx", functions))


def test_functions_in_proportion_are_read(tmp_path: Path) -> None:
    functions = [function("f", [("Relu", ""), ("Tanh", "")]), function("g", [("f", "own")] * 3)]
    found = bench([of_functions(tmp_path / "m.onnx", functions)], batch_sizes=(1,), seconds=0.01)
    assert found["models"][str(tmp_path / "m.onnx")]["1"]["p50"] > 0
