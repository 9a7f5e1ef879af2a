"""Rules of products that sum over a dimension; each of them is an einsum."""

import math
from collections.abc import Sequence
from string import ascii_letters
from typing import Any

from torch import fx

from compress.graph.dimensions import BATCH, Dim, keep, leaves, size_of
from compress.graph.flow import Flow, Value, at


def contraction(flow: Flow, node: fx.Node, operands: Sequence[tuple[fx.Node, str]], result: str) -> tuple[Dim, ...]:
    """The product of `operands` (node, a letter for each dimension), summed over the letters not in `result`.

    In the network's own tensors, summed dimensions read nodes and the others write them; of several parameters that
    are multiplied with each other, the last writes what the others read. Where no operand with a summed letter is a
    parameter, one of the operands must be zero at dead nodes.
    """
    dims: dict[str, Dim] = {}
    holders: dict[str, list[fx.Node]] = {}
    for operand, letters in operands:
        for letter, dim in zip(letters, flow.dims(operand), strict=True):
            flow.align(node, dims.get(letter) or dim, dim or dims.get(letter, ()))
            dims[letter] = dims.get(letter) or dim
            if dim:
                holders.setdefault(letter, []).append(operand)
    for letter, sources in holders.items():
        if letter not in result and not any(flow.holds_zeros(source, dims[letter]) for source in sources):
            flow.contract(dims[letter], node, sources)
    for operand, letters in operands:
        for index, letter in enumerate(letters):
            if operand in flow.tensors:
                own = [source for source in holders.get(letter, ()) if flow.is_parameter(source)]
                reads = letter not in result and not (len(set(own)) > 1 and operand is own[-1])
                (flow.reads if reads else flow.writes).add((flow.tensors[operand], index))
    for operand, letters in operands:
        if operand in flow.tensors:
            count_positions(flow, operand, [dims[letter] for letter in result if letter not in letters])
    if not any(flow.is_parameter(operand) for operand, _ in operands):
        flow.products[node.name] = [*dims.values()]
    # A product is zero where one of its factors is.
    other = [
        set(leaves(dims[letter])).difference(*(flow.zeros(source) for source in holders.get(letter, ())))
        for letter in result
    ]
    found = tuple(dims[letter] for letter in result)
    flow.vanishes(node, {factor for dim in found for factor in leaves(dim)}.difference(*other))
    return found


def count_positions(flow: Flow, weight: fx.Node, dims: Sequence[Dim]) -> None:
    """How often each entry of `weight` is used for one sample, which gives the multiply-adds."""
    entries = math.prod(map(size_of, dims))
    flow.positions[flow.tensors[weight]] += max(1, entries // BATCH if entries % BATCH == 0 else entries)


def add_bias(flow: Flow, node: fx.Node, result: Sequence[Dim], place: int, bias: fx.Node | None) -> None:
    """`bias` is added to `result`, whose dimension `place` is the last one of the bias."""
    if bias is None:
        return
    others = list(result)
    for one in flow.dims(bias)[::-1]:
        other = others.pop(place)
        flow.align(node, one or other, other)
        place -= 1
    flow.vanishes(node, flow.zeros(node) & flow.zeros(bias))


def addmm(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Also addmv, addr and baddbmm: a bias plus a product; addbmm sums the products of a batch as well."""
    bias, one, other = (arguments[name] for name in list(arguments)[:3])
    if "vec1" in arguments:
        result = contraction(flow, node, [(one, "a"), (other, "b")], "ab")
    elif len(flow.dims(one)) == 3 and node.meta["val"].ndim == 2:
        result = contraction(flow, node, [(one, "brk"), (other, "bkc")], "rc")
    else:
        result = _product(flow, node, one, other)
    add_bias(flow, node, result, len(result) - 1, bias)
    return result


def matmul(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    one, other = (node.all_input_nodes * 2)[:2] if len(node.all_input_nodes) < 2 else node.all_input_nodes[:2]
    return _product(flow, node, one, other)


def _product(flow: Flow, node: fx.Node, one: fx.Node, other: fx.Node) -> tuple[Dim, ...]:
    ranks = [len(flow.dims(one)), len(flow.dims(other))]
    batch = letters_of(max(0, *(rank - 2 for rank in ranks)))
    rows, columns = ("r" if ranks[0] > 1 else ""), ("c" if ranks[1] > 1 else "")
    first = batch[len(batch) - max(0, ranks[0] - 2) :] + rows + "k"
    second = batch[len(batch) - max(0, ranks[1] - 2) :] + "k" + columns
    return contraction(flow, node, [(one, first), (other, second)], batch + rows + columns)


def chain_of_products(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """linalg.multi_dot: the first and the last may be vectors."""
    tensors = next(iter(arguments.values()))
    ranks = [len(flow.dims(tensor)) for tensor in tensors]
    operands = [(tensor, ascii_letters[place : place + 2]) for place, tensor in enumerate(tensors)]
    operands[0] = (tensors[0], operands[0][1][-ranks[0] :])
    operands[-1] = (tensors[-1], operands[-1][1][: ranks[-1]])
    result = operands[0][1][:1] * (ranks[0] == 2) + operands[-1][1][1:]
    return contraction(flow, node, operands, result)


def einsum(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    tensors = arguments["tensors"]
    terms, result = _equation(arguments["equation"], [len(flow.dims(tensor)) for tensor in tensors])
    return contraction(flow, node, list(zip(tensors, terms, strict=True)), result)


def _equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with the dimensions of "..." named and the result written out."""
    before, arrow, result = equation.replace(" ", "").partition("->")
    terms = before.split(",")
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    others = [letter for letter in ascii_letters if letter not in equation]
    dots = (
        "".join(others[: max(count for count, term in zip(counts, terms, strict=True) if "..." in term)])
        if ("..." in before)
        else ""
    )
    if not arrow:
        letters = sorted(letter for letter in set(before) if letter.isalpha() and before.count(letter) == 1)
        result = ("..." if dots else "") + "".join(letters)
    named = [term.replace("...", dots[len(dots) - count :]) for term, count in zip(terms, counts, strict=True)]
    return named, result.replace("...", dots)


def bilinear(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """weight [o, i, j]"""
    one, other, weight, bias = (arguments[name] for name in ("input1", "input2", "weight", "bias"))
    batch = letters_of(len(flow.dims(one)) - 1)
    result = contraction(flow, node, [(one, batch + "i"), (other, batch + "j"), (weight, "oij")], batch + "o")
    add_bias(flow, node, result, len(result) - 1, bias)
    return result


def tensordot(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    one, other = arguments["self"], arguments["other"]
    ranks = [len(flow.dims(one)), len(flow.dims(other))]
    first, second = list(ascii_letters[: ranks[0]]), list(ascii_letters[ranks[0] : sum(ranks)])
    places = [place % ranks[0] for place in arguments["dims_self"]]
    for place, same in zip(places, arguments["dims_other"], strict=True):
        second[same] = first[place]
    summed = {first[place] for place in places}
    result = "".join(letter for letter in (*first, *second) if letter not in summed)
    return contraction(flow, node, [(one, "".join(first)), (other, "".join(second))], result)


def inner(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    one, other = arguments["self"], arguments["other"]
    ranks = [len(flow.dims(one)), len(flow.dims(other))]
    if not all(ranks):
        return "has no rule for a number"
    first, second = letters_of(ranks[0] - 1), letters_of(sum(ranks) - 2)[ranks[0] - 1 :]
    return contraction(flow, node, [(one, first + "k"), (other, second + "k")], first + second)


def outer(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    one, other = arguments["self"], arguments["vec2"]
    return contraction(flow, node, [(one, "a"), (other, "b")], "ab")


def kronecker(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """Every dimension of the result is the product of two: nodes of either remain blocks of it."""
    one, other = (list(flow.dims(arguments[name])) for name in ("self", "other"))
    rank = max(len(one), len(other))
    one, other = ([()] * (rank - len(dims)) + dims for dims in (one, other))
    return tuple((*a, *b) for a, b in zip(one, other, strict=True))


def vector_product(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """linalg.vecdot: the sum of products along one dimension of two tensors that are broadcast."""
    return _along_one(flow, node, arguments["x"], arguments["y"], arguments["dim"])


def cosine(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """It divides by both lengths, which do not change with the cut only if both vectors are zero at dead nodes."""
    one, other = arguments["x1"], arguments["x2"]
    place = arguments["dim"] % node.meta["val"].ndim + 1 if arguments["dim"] < 0 else arguments["dim"]
    for tensor in (one, other):
        dims = flow.dims(tensor)
        if place < len(dims):
            flow.contract(dims[place], node, [tensor])
    return _along_one(flow, node, one, other, place)


def _along_one(flow: Flow, node: fx.Node, one: fx.Node, other: fx.Node, dim: int) -> Value | str:
    ranks = [len(flow.dims(one)), len(flow.dims(other))]
    letters = letters_of(max(ranks))
    gone = letters[dim]
    operands = [(tensor, letters[len(letters) - rank :]) for tensor, rank in zip((one, other), ranks, strict=True)]
    return contraction(flow, node, operands, letters.replace(gone, ""))


def distances(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """cdist: distances between the rows of two matrices; a dead node adds nothing if both are zero there."""
    one, other = arguments["x1"], arguments["x2"]
    first, second = flow.dims(one), flow.dims(other)
    for tensor, dims in ((one, first), (other, second)):
        flow.contract(dims[-1], node, [tensor])
    flow.align(node, first[-1], second[-1])
    batch = max(len(first), len(second)) - 2
    heads = [((),) * (batch - len(dims) + 2) + dims[:-2] for dims in (first, second)]
    for mine, its in zip(*heads, strict=True):
        flow.align(node, mine or its, its or mine)
    return (*(mine or its for mine, its in zip(*heads, strict=True)), first[-2], second[-2])


def grouped_product(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """The product in a mixture of experts: rows [t, k], sorted by expert, times weights [experts, k, n]."""
    rows, weights = node.args[0], node.args[1]
    assert isinstance(rows, fx.Node)
    assert isinstance(weights, fx.Node)
    if len(flow.dims(rows)) != 2 or len(flow.dims(weights)) != 3:
        return "groups its products in a way that has no rule"
    experts = flow.dims(weights)[0]
    result = contraction(flow, node, [(rows, "tk"), (weights, "ekn")], "etn")
    keep(experts, f"{at(node)} sends each row to one of them")
    add_bias(flow, node, result[1:], 1, arguments.get("bias"))
    return result[1:]


def letters_of(count: int) -> str:
    """Upper-case letters for the dimensions that pass unchanged."""
    return "".join(chr(ord("A") + index) for index in range(count))
