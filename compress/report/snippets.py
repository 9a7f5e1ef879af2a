"""How to use the files of a run: Python that works unchanged in the folder with the files."""

from collections.abc import Iterator, Mapping

from compress.report.preparing import Preparing, preparing
from compress.results import Contract, Results


def snippets(results: Results) -> Iterator[tuple[str, str, str]]:
    """(file, its requirements, code) for each file that the run has written.

    The code prepares a raw sample as the file's contract says, where that is known, and prints what the network says.
    """
    written, contract = results["recipe"]["export"], results.get("contract")
    made, build = preparing(contract), _build(results["recipe"]["model"])
    int8 = "file" in results.get("choices", {}).get("slim_int8", {})  # it may have been refused
    for file in [*(["slim.onnx"] if "onnx" in written else []), *(["slim.int8.onnx"] if int8 else [])]:
        yield file, made.needing("onnxruntime"), _onnx(file, contract, made)
    if "pt2" in written:
        yield "slim.pt2", f"{made.needing('torch')}, without the network's code", _pt2(contract, made)
    if "safetensors" in written:
        yield "slim.safetensors", "this package, to train on", _SAFETENSORS.format(build=build)
    if "sparse" in written:
        needs = "this package; layers become sparse where that is faster on your machine"
        yield "slim.sparse.safetensors", needs, _sparse(build, contract, made)


_SAFETENSORS = """\
import compress  # from the package softprune
{build}
network = compress.load("slim.safetensors", model=build)  # build() makes it in its original size
"""

_TENSORS = "tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}"


def _onnx(file: str, contract: Contract | None, made: Preparing) -> str:
    return _joined(
        made.importing("import onnxruntime"),
        f'session = onnxruntime.InferenceSession("{file}")',
        made.reading("session.get_modelmeta().custom_metadata_map"),
        f"{made.lines}\n",
        "output, *others = session.run(None, inputs)  # in the order of session.get_outputs()",
        _shown(contract) if made.shown is None else made.shown,
    )


def _pt2(contract: Contract | None, made: Preparing) -> str:
    given, _, remark = _call(contract)
    return _joined(
        made.importing("import torch"),
        'notes = {"contract": ""}',
        'network = torch.export.load("slim.pt2", extra_files=notes).module()',
        made.reading("notes"),
        f"{made.lines}\n",
        _TENSORS,
        f"output = network({given}){remark}",
    )


def _sparse(build: str, contract: Contract | None, made: Preparing) -> str:
    given, example, remark = _call(contract)
    return _joined(
        made.importing("import torch", "from safetensors import safe_open"),
        "import compress  # from the package softprune",
        build,
        'with safe_open("slim.sparse.safetensors", "pt") as file:',
        "    notes = file.metadata()",
        made.reading("notes"),
        f"{made.lines}\n",
        _TENSORS,
        'network = compress.load("slim.sparse.safetensors", model=build)',
        f"network = compress.sparse(network.eval(), {example}, batch_size=1)",
        f"output = network({given}){remark}",
    )


def _joined(*parts: str) -> str:
    return "".join(f"{part}\n" for part in parts if part)


def _call(contract: Contract | None) -> tuple[str, str, str]:
    """(the arguments of a call with `tensors`, the same as one example, a remark)."""
    if contract is not None and [one["name"] for one in contract["inputs"]] == ["input"]:
        return 'tensors["input"]', 'tensors["input"]', ""
    if contract is not None and contract["preparation"] is not None:  # our own data give several inputs by name
        return "**tensors", "tensors", ""
    return "*tensors.values()", "tuple(tensors.values())", "  # by position or by name, as in training"


def _shown(contract: Contract | None) -> str:
    """What the network says of the sample: the name of a class, where the outputs are classes that have names."""
    named = None if contract is None else contract["classes"]
    if contract is not None and named and contract["outputs"][0]["shape"] == ["batch", len(named)]:
        return 'print(contract["classes"][output[0].argmax()])'
    return "print(output[0])"


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
