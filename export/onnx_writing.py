"""Writes ONNX graphs, tensor by tensor: protobuf's own writer has all of the weights in memory twice more.

The bytes are those that `onnx_ir.save` writes. The file is one protobuf message (a ModelProto), in it another (its
graph), and in that one a message for each tensor. All messages but the large tensors' values are encoded by protobuf;
here they are put together, which takes the lengths of what is inside of each.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from compress.errors import UnsupportedModelError

if TYPE_CHECKING:
    import onnx_ir

SMALL = 1 << 16
"""Bytes of a tensor that is encoded with the graph, such as the sizes of a view."""

MOST = 2**31 - 1
"""Bytes of a protobuf message: no reader takes more."""

_OF_A_LENGTH = 2
"""protobuf's code for a field whose length is written before it."""

_DATA = "data"
"""The file, in a private folder, that is named as the place of large tensors while a graph is checked."""


def write_onnx(graph: "onnx_ir.Model", path: Path) -> None:
    """Write the graph into `path`; each of its large tensors is copied from where it is.

    Raises:
        UnsupportedModelError: the file would be larger than protobuf allows.
    """
    large = large_tensors(graph)
    with _without(graph, large) as message:
        for tensor in message.graph.initializer:
            if tensor.name in large:
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
        tensors = [
            _Encoded.around(tensor, "raw_data", [_Encoded([large[tensor.name]])])
            if tensor.name in large
            else _Encoded([tensor.SerializeToString()])
            for tensor in message.graph.initializer
        ]
        whole = _Encoded.around(message, "graph", [_Encoded.around(message.graph, "initializer", tensors)])
    if whole.size > MOST:
        raise UnsupportedModelError(
            f"the network takes {whole.size / 1e9:.1f} GB as ONNX, and no reader takes a file of more than 2 GB: leave "
            "out the ONNX file, or make the network smaller first"
        )
    with path.open("wb") as file:
        whole.write(file)


def check_onnx(graph: "onnx_ir.Model") -> None:
    """Have `onnx.checker` check the graph, its shapes included; the values of large tensors are not looked at.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: it is not a valid graph.
    """
    import onnx

    large = large_tensors(graph)
    with _without(graph, large) as message, tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder, "graph.onnx"), Path(folder, _DATA)
        model.write_bytes(message.SerializeToString())
        with data.open("wb") as file:  # it has this size, and takes no room
            file.truncate(max((tensor.nbytes for tensor in large.values()), default=0))
        onnx.checker.check_model(os.fspath(model), full_check=True)


def large_tensors(graph: "onnx_ir.Model") -> dict[str, "onnx_ir.Tensor[Any]"]:
    """The large tensors of a graph that are in memory, by name."""
    import onnx_ir

    held = {str(name): value.const_value for name, value in graph.graph.initializers.items()}
    return {
        name: tensor for name, tensor in held.items() if isinstance(tensor, onnx_ir.Tensor) and tensor.nbytes >= SMALL
    }


@contextmanager
def _without(graph: "onnx_ir.Model", large: dict[str, "onnx_ir.Tensor[Any]"]) -> Iterator[Any]:
    """Yield the graph as a message, in which the values of these tensors are in another file."""
    import onnx_ir

    values = graph.graph.initializers
    try:
        for name, tensor in large.items():
            values[name].const_value = onnx_ir.ExternalTensor(
                _DATA,
                0,
                tensor.nbytes,
                tensor.dtype,
                shape=tensor.shape,
                name=name,
                doc_string=tensor.doc_string,
                metadata_props=tensor.metadata_props,
            )
        yield onnx_ir.to_proto(graph)
    finally:
        for name, tensor in large.items():
            values[name].const_value = tensor


@dataclass(frozen=True)
class _Encoded:
    """What a message has encoded, in pieces: bytes, and tensors that are not encoded yet."""

    pieces: "list[bytes | onnx_ir.Tensor[Any]]"

    @classmethod
    def around(cls, message: Any, field: str, contents: "list[_Encoded]") -> "_Encoded":
        """A message, with each of these contents as its field of that name, in the order of the fields' numbers."""
        number = message.DESCRIPTOR.fields_by_name[field].number
        before, after = type(message)(), type(message)()
        before.CopyFrom(message)
        after.CopyFrom(message)
        for other, _ in message.ListFields():
            if other.number >= number:
                before.ClearField(other.name)
            if other.number <= number:
                after.ClearField(other.name)
        pieces: list[bytes | onnx_ir.Tensor[Any]] = [before.SerializeToString()]
        for content in contents:
            pieces += [_varint(number << 3 | _OF_A_LENGTH), _varint(content.size), *content.pieces]
        return cls([*pieces, after.SerializeToString()])

    @property
    def size(self) -> int:
        return sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in self.pieces)

    def write(self, file: BinaryIO) -> None:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                piece.tofile(file)


def _varint(number: int) -> bytes:
    """protobuf's code of a number: seven bits a byte, the lowest first, with a bit that says whether more follow."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
