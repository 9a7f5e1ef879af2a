"""How to use the files of a run: Python that works unchanged in the folder with the files."""

from collections.abc import Iterator, Mapping

from compress.results import Results, UsedData


def snippets(results: Results) -> Iterator[tuple[str, str, str]]:
    """(file, its requirements, code) for each file that the run has written."""
    written, data = results["recipe"]["export"], results["data"]
    batch, images = _batch(data), "mean" in data  # a user's own loaders may give several inputs
    int8 = "file" in results.get("choices", {}).get("slim_int8", {})  # it may have been refused
    for file in [*(["slim.onnx"] if "onnx" in written else []), *(["slim.int8.onnx"] if int8 else [])]:
        yield file, "onnxruntime alone", _ONNX.format(batch=batch, file=file, inputs=_IMAGES if images else _ANY)
    if "pt2" in written:
        code = _PT2.format(batch=batch, several="" if images else _SEVERAL)
        yield "slim.pt2", "torch alone, without the network's code", code
    if "safetensors" in written:
        code = _SAFETENSORS.format(build=_build(results["recipe"]["model"]))
        yield "slim.safetensors", "this package, to train on", code
    if "sparse" in written:
        code = _SPARSE.format(build=_build(results["recipe"]["model"]), batch=batch, several="" if images else _SEVERAL)
        yield "slim.sparse.safetensors", "this package; layers become sparse where that is faster on your machine", code


_IMAGES, _ANY = '{"input": batch}', "{one.name: batch for one in session.get_inputs()}"
_SEVERAL = "  # several tensors by position or by name, as in training"

_ONNX = """\
import numpy as np
import onnxruntime

{batch}
session = onnxruntime.InferenceSession("{file}")
inputs = {inputs}
output, *others = session.run(None, inputs)  # in the order of session.get_outputs()
"""

_PT2 = """\
import numpy as np
import torch

{batch}
network = torch.export.load("slim.pt2").module()
output = network(torch.from_numpy(batch)){several}
"""

_SAFETENSORS = """\
import compress  # from the package softprune
{build}
network = compress.load("slim.safetensors", model=build)  # build() makes it in its original size
"""

_SPARSE = """\
import numpy as np
import torch

import compress  # from the package softprune
{build}
{batch}
network = compress.load("slim.sparse.safetensors", model=build)
network = compress.sparse(network.eval(), torch.from_numpy(batch), batch_size=1)
output = network(torch.from_numpy(batch)){several}
"""


def _batch(data: UsedData) -> str:
    """Code that prepares inputs as in training; inputs of a user's own loaders are left to the user."""
    if "shape" not in data:
        return "batch = ...  # float32 [N, ...], as in training"
    shape = ", ".join(str(int(size)) for size in data["shape"])
    if "mean" not in data:
        return f"batch = np.zeros((1, {shape}), np.float32)  # your inputs, as in training; of several, each its own"
    mean, std = ([float(f"{value:.7g}") for value in data[key]] for key in ("mean", "std"))
    return (
        f"images = np.zeros((1, {shape}), np.uint8)  # your images, any number of them\n"
        f"mean, std = np.reshape({mean}, (-1, 1, 1)), np.reshape({std}, (-1, 1, 1))\n"
        "batch = ((images / 255 - mean) / std).astype(np.float32)"
    )


def _build(model: Mapping[str, object]) -> str:
    """Lines that define `build`; the file is untrusted, so only identifiers become code."""
    name, settings = str(model.get("name", "")), {key: value for key, value in model.items() if key != "name"}
    module, _, function = str(model.get("factory", "")).partition(":")
    if all(part.isidentifier() for part in (*module.split("."), function)):
        lines = [f"from {module} import {function}", f"{function}(**{model.get('args', {})!r})"]
    elif all(word.isidentifier() for word in (name, *settings)):
        arguments = ", ".join(f"{key}={_literal(value)}" for key, value in settings.items())
        lines = ["from compress import models", f"models.{name}({arguments})"]
    else:
        lines = ["# the function that makes your network", "..."]
    return f"{lines[0]}\n\n\ndef build():\n    return {lines[1]}\n\n"


def _literal(value: object) -> str:
    return repr(tuple(value)) if isinstance(value, list) else repr(value)
