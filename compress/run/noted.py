"""The network that a file of weights names: untrusted, and limited by the size of the file."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.files.checkpoint import WeightsFile, rebuild
from compress.files.foreign import TIMES
from compress.graph.dimensions import BATCH
from compress.graph.trace import Trace, trace
from compress.recipe import schema
from compress.recipe.loading import MAX_BYTES
from compress.recipe.noted import noted_recipe
from compress.run.building import build_model, example_of
from compress.wording import count_of

MOST_OPERATORS = 5_000
"""The most operators of a network that only a file names: 120 blocks of a transformer, a few milliseconds each."""

MOST_STEPS = 5_000
"""The most steps of its recurrent layers, summed over each sequence."""

ROOM = 2**28
"""Bytes that its activations may take, in addition to a multiple of the file's size."""

_MOST_BYTES = 8 * 2**30
_ROWS = 7  # the largest batch that an exported file is proven with
_COPIES = 4  # of the largest activation: an operator's inputs, outputs and temporary tensors
_RECURRENT = ("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")


def recipe_of(metadata: Mapping[str, str], source: str) -> schema.Recipe | None:
    """The recipe in the metadata of the file `source`, if any.

    Raises:
        InputError: it is damaged, of another version, or longer than any recipe.
    """
    text = metadata.get("recipe")
    if text is None:
        return None
    if len(text) > MAX_BYTES:
        raise InputError(
            f"the recipe inside {source} is damaged ({count_of(len(text), 'character')}; the limit is {MAX_BYTES:,}): "
            "name one with --recipe"
        )
    return noted_recipe(text, source)


def build(recipe: schema.Recipe, weights: WeightsFile, source: str, size: int) -> nn.Module:
    """The network that the recipe names, with the weights of the file, which has `size` bytes.

    It is built without memory, cut as the file's edits say, and only then filled with the file's own tensors.

    Raises:
        InputError: it is too large for such a file, or does not fit the weights.
    """
    wanted = recipe.model
    if isinstance(wanted, schema.FactoryModel | schema.Program):
        raise InputError(f"the recipe inside {source} does not name a built-in network: name one with --recipe")
    example = example_of(wanted)
    _require_room(max(math.prod(given.shape[1:]) for given in example.tensors), 0, source, size)
    model = rebuild(weights, lambda: _without_memory(wanted, source), source)
    _require_modest(trace(model, example, MOST_OPERATORS, passes=False), source, size)
    return model


def _without_memory(wanted: schema.Model, source: str) -> nn.Module:
    try:
        with torch.device("meta"):
            model = build_model(wanted, None)
            size, layers = sum(tensor.nbytes for tensor in model.parameters()), sum(1 for _ in model.modules())
    except (RuntimeError, TypeError, OverflowError) as error:
        raise InputError(f"the network that the recipe inside {source} names cannot be built: {error}") from error
    if size > _MOST_BYTES or layers > MOST_OPERATORS:
        what, most = (
            (f"{size:,} bytes", _MOST_BYTES) if size > _MOST_BYTES else (count_of(layers, "layer"), MOST_OPERATORS)
        )
        raise InputError(
            f"the recipe inside {source} names a network of {what}; the limit is {most:,}: "
            "if the size is right, name the recipe with --recipe"
        )
    return model


def _require_modest(traced: Trace, source: str, size: int) -> None:
    """Refuse a network that has few weights, but needs much memory or time to run."""
    largest = steps = 0
    for node in traced.graph.nodes:
        values = node.meta.get("val", ())
        for value in values if isinstance(values, list | tuple) else (values,):
            if isinstance(value, Tensor):
                largest = max(largest, math.prod(value.shape) // BATCH)
        name = node.target._schema.name if isinstance(node.target, torch._ops.OpOverload) else ""
        if name == "aten::scaled_dot_product_attention":
            query, key = (given.meta["val"].shape for given in node.args[:2])
            largest = max(largest, math.prod(query[:-1]) * key[-2] // BATCH)
        elif name in _RECURRENT:
            steps += math.prod(node.args[0].meta["val"].shape[:2]) // BATCH * int(node.args[4])
    _require_room(largest, steps, source, size)


def _require_room(largest: int, steps: int, source: str, size: int) -> None:
    """Refuse activations of `largest` entries per sample, or that many `steps`, for a file of `size` bytes."""
    needed = 4 * largest * _ROWS * _COPIES
    if needed > ROOM + TIMES * size or steps > MOST_STEPS:
        what = f"{count_of(steps, 'step')} of recurrent layers" if steps > MOST_STEPS else f"{needed:,} bytes to run"
        raise InputError(
            f"the recipe inside {source} names a network that takes {what}, out of proportion to {size:,} bytes of "
            "weights: if the size is right, name the recipe with --recipe"
        )
