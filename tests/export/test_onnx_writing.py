import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import Tensor

from compress.errors import UnsupportedModelError
from compress.export import onnx_writing
from compress.export.onnx_writing import check_onnx, large_tensors, write_onnx

TEXT = """
<ir_version: 10, opset_import: ["" : 20], producer_name: "a test", doc_string: "first">
named (float[N, 300] x) => (float[N, 40] y) <float[N, 40] between> {
    between = MatMul(x, w)
    y = Mul(between, small)
}
"""
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def graph_of(**tensors: Tensor) -> onnx_ir.Model:
    """The graph of `TEXT` with these initializers, and `small`."""
    model = onnx_ir.from_proto(onnx.parser.parse_model(TEXT))
    model.metadata_props["recipe"] = "ä"  # behind the graph
    for name, tensor in {**tensors, "small": torch.tensor(2.0)}.items():
        held = TorchTensor(tensor, name=name)
        value = onnx_ir.Value(name=name, shape=held.shape, type=onnx_ir.TensorType(held.dtype), const_value=held)
        known = [given for node in model.graph for given in node.inputs if given is not None and given.name == name]
        for given in known:
            given.const_value, given.shape, given.type = held, held.shape, value.type
        model.graph.initializers.add(known[0] if known else value)
    return model


def weight(rows: int = 300) -> Tensor:
    return torch.randn(rows, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("least", [0, 200, 1 << 16], ids=["all", "some", "none"])
def test_the_bytes_are_those_of_the_library(least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_writing, "SMALL", least)
    others = {f"t{number}": (torch.rand(7, 9) * 3).to(dtype) for number, dtype in enumerate(TYPES)}
    model = graph_of(w=weight(), **others, strided=weight().T, empty=torch.zeros(0, 3))
    before = large_tensors(model)
    assert len(before) == {0: 11, 200: 5, 1 << 16: 0}[least]
    write_onnx(model, tmp_path / "mine.onnx")
    assert large_tensors(model) == before  # each is in its place again
    onnx_ir.save(model, tmp_path / "theirs.onnx")
    assert (tmp_path / "mine.onnx").read_bytes() == (tmp_path / "theirs.onnx").read_bytes()
    read = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "mine.onnx").graph.initializer}
    np.testing.assert_array_equal(read["w"], weight().numpy())
    np.testing.assert_array_equal(read["strided"], weight().numpy().T)


def test_a_graph_without_initializers(tmp_path: Path) -> None:
    model = graph_of(w=weight())
    model.graph.initializers.clear()
    write_onnx(model, tmp_path / "mine.onnx")
    onnx_ir.save(model, tmp_path / "theirs.onnx")
    assert (tmp_path / "mine.onnx").read_bytes() == (tmp_path / "theirs.onnx").read_bytes()


def test_no_copy_of_the_weights_is_made(tmp_path: Path) -> None:
    held = torch.zeros(300, 40_000)
    model = graph_of(w=weight(), large=held)
    write_onnx(model, tmp_path / "first.onnx")  # what is imported and cached
    tracemalloc.start()
    try:
        check_onnx(model)
        write_onnx(model, tmp_path / "m.onnx")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < held.nbytes / 50
    assert (tmp_path / "m.onnx").stat().st_size > held.nbytes


@pytest.mark.parametrize("least", [0, 1 << 16])
@pytest.mark.parametrize(("rows", "valid"), [(300, True), (299, False)])
def test_graphs_are_checked(rows: int, valid: bool, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_writing, "SMALL", least)
    if valid:
        check_onnx(graph_of(w=weight(rows)))
    else:
        with pytest.raises(onnx.shape_inference.InferenceError, match="Incompatible dimensions"):
            check_onnx(graph_of(w=weight(rows)))


def test_more_than_protobuf_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph_of(w=weight(), large=torch.zeros(300, 400))
    write_onnx(model, tmp_path / "m.onnx")
    size = (tmp_path / "m.onnx").stat().st_size
    monkeypatch.setattr(onnx_writing, "MOST", size)
    write_onnx(model, tmp_path / "fits.onnx")
    monkeypatch.setattr(onnx_writing, "MOST", size - 1)
    with pytest.raises(UnsupportedModelError, match=r"0\.0 GB as ONNX, and no reader takes .* 2 GB: leave out"):
        write_onnx(model, tmp_path / "refused.onnx")
    assert not (tmp_path / "refused.onnx").exists()
