"""The rule of attention as one operator."""

from typing import Any

from torch import fx

from compress.graph.dimensions import Dim, keep, regroup, size_of, total
from compress.graph.flow import EXTENT, Flow, Value


def attention(flow: Flow, node: fx.Node, arguments: dict[str, Any]) -> Value | str:
    """softmax(query @ key.T / sqrt(size)) @ value: the number of positions it normalizes over cannot change.

    With groups, query heads are kv heads x queries of each: a head of keys and values is pruned with all its queries.
    """
    query, key, value = (list(flow.dims(arguments[name])) for name in ("query", "key", "value"))
    heads = query[:-2]
    if arguments.get("enable_gqa") and size_of(query[-3]) != size_of(key[-3]):
        pieces = regroup([query[-3]], [size_of(key[-3]), size_of(query[-3]) // size_of(key[-3])])
        if pieces is None:
            return "groups its queries at borders that do not meet those of its heads"
        heads[-1] = pieces[0]
    keep((query[-2], key[-2], value[-2]), EXTENT)
    for one, other in [*zip(heads, key[:-2], strict=True), *zip(heads, value[:-2], strict=True)]:
        flow.align(node, one or other, other or one)
    flow.align(node, query[-1], key[-1])
    flow.contract(query[-1], node, (arguments["query"], arguments["key"]))
    if arguments["attn_mask"] is not None:
        for mine, dim in zip(flow.dims(arguments["attn_mask"])[-3::-1], query[-3::-1], strict=False):
            flow.align(node, mine or dim, dim)
    # Of two products, with as many multiply-adds as there are entries of queries x keys, and of queries x values.
    flow.products[node.name] = [*heads, query[-2], key[-2], total([query[-1], value[-1]])]
    flow.vanishes(node, flow.zeros(arguments["value"]))
    result: tuple[Dim, ...] = (*query[:-1], value[-1])
    if isinstance(node.meta["val"], list | tuple):  # with what the backward pass needs
        return [result, query[:-1]]
    return result
