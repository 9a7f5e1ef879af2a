"""Names of torch's operators: one name for all overloads and in-place variants, and torch's aliases."""

import torch
from torch import fx

# Other names that torch has for an operator.
ALIASES = {
    "absolute": "abs",
    "clip": "clamp",
    "divide": "div",
    "true_divide": "div",
    "fix": "trunc",
    "multiply": "mul",
    "negative": "neg",
    "subtract": "sub",
    "special_expit": "sigmoid",
    "special_exp2": "exp2",
    "ger": "outer",
    **{f"arc{name}": f"a{name}" for name in ("cos", "cosh", "sin", "sinh", "tan", "tanh", "tan2")},
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
    **{f"special_{name}": name for name in ("digamma", "erf", "erfc", "erfinv", "expm1", "i0", "log1p", "logit")},
    **{f"special_{name}": name for name in ("round", "sinc", "xlogy", "polygamma", "logsumexp", "softmax")},
    "special_log_softmax": "log_softmax",
    "special_gammaln": "lgamma",
    "special_psi": "digamma",
    "special_gammainc": "igamma",
    "special_gammaincc": "igammac",
    "special_multigammaln": "mvlgamma",
    "concat": "cat",
    "concatenate": "cat",
    "broadcast_to": "expand",
    "tile": "repeat",
    "moveaxis": "movedim",
    "linalg_matmul": "matmul",
    "chain_matmul": "linalg_multi_dot",
    "grid_sampler": "grid_sampler_2d",
    "_unsafe_index": "index",
    "_unsafe_index_put": "index_put",
    "_index_put_impl": "index_put",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d": "adaptive_avg_pool3d",
    "take_along_dim": "gather",
    "unsafe_chunk": "chunk",
    "unsafe_split": "split",
    "lift_fresh": "clone",
    "unsafe_split_with_sizes": "split_with_sizes",
    "frobenius_norm": "norm",
    "_stack": "stack",
    "lift": "clone",
    "_cdist_forward": "cdist",
    "_euclidean_dist": "cdist",
    "_reshape_alias": "view",
    "_conj": "conj",
    "_embedding_bag": "embedding_bag",
    "_embedding_bag_forward_only": "embedding_bag",
    "native_dropout": "dropout",
    "inverse": "linalg_inv",
    "pinverse": "linalg_pinv",
    "slogdet": "linalg_slogdet",
    **{f"_linalg_{name}": f"linalg_{name}" for name in ("det", "eigh", "slogdet", "solve_ex", "svd")},
    **{name: f"linalg_{name}" for name in ("det", "matrix_exp", "matrix_power")},
}


def name_of(node: fx.Node) -> str:
    """The operator's name, the same for all its overloads, in place or not: "add", "__and__", "torchvision::nms"."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return str(getattr(node.target, "__name__", node.target))
    return plain_name(str(node.target._schema.name).removeprefix("aten::"))


def plain_name(name: str) -> str:
    """Of an operator in place, the name of the one that gives a new tensor."""
    if name.startswith("__"):
        return name.replace("__i", "__", 1) if name in _IN_PLACE else name
    return name.removesuffix("_")


_IN_PLACE = {f"__i{name}__" for name in ("and", "or", "xor", "lshift", "rshift")}
