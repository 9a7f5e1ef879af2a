"""What is generated of operators.md: which of torch's operators have a rule, are elementwise, or are kept.

    python docs/operators.py

The list is torch's own (`aten::` in its dispatcher) and depends on its version, which the page names. An operator in
place, and all overloads of a name, are one operator.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torchvision  # noqa: F401 - its operators are among torch's once it is imported

from compress.graph.names import plain_name
from compress.graph.rules import rule_named
from compress.graph.shapes import elementwise

PAGE = Path(__file__).parent / "operators.md"
_MARKED = re.compile(r"(<!-- (?P<what>counts|followed|elementwise|kept) -->\n).*?(<!-- /(?P=what) -->)", re.DOTALL)

# Kept operators that no network calls in its forward pass in evaluation mode, by what their names have in common.
_GROUPS = {
    "backward passes": r".*backward.*|.*_jvp|.*_grad",
    "lists of tensors, optimizers and gradient scaling": r"_foreach_.*|_fused_(ada|sgd|ada).*|_amp_.*|_chunk_cat",
    "sparse and nested tensors": r".*(sparse|nested|jagged|coo|csr|csc|bsr|bsc|_cslt|coalesce|_indices|_values|_nnz).*",
    "quantized tensors": r".*(quant|fbgemm|qparams|q_scale|q_zero|q_per|qscheme|int_repr|int4|int8|fake_).*",
    "one vendor's own": r".*(cudnn|miopen|mkldnn|mps|cufft|triton|nnpack|vulkan|xla|philox).*",
    "random numbers": r".*(rand|normal|bernoulli|uniform|poisson|multinomial|binomial|dirichlet|gamma|sobol).*"
    r"|cauchy|exponential|geometric|log_normal",
    "losses": r".*(_loss|cross_entropy|kl_div).*|.*nll_loss.*|.*ctc.*",
    "questions about a tensor, and tests": r"is_.*|_is_.*|.*_test_.*|.*assert.*|_use_.*|.*sym_.*|size|stride|numel|dim"
    r"|item|equal|allclose|storage_offset|_version|.*_type|get_device|data|requires_grad|retain.*|.*same.*|_debug.*",
}


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def names() -> list[str]:
    """All operators of torch, and torchvision's with a rule."""
    listed = {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    own = {plain_name(name.removeprefix("aten::")) for name in listed if name.startswith("aten::")}
    own |= {name for name in listed if name.startswith("torchvision::") and rule_named(name)}
    return sorted(own)


def followed() -> dict[str, list[str]]:
    """The operators with their own rule, by what it is about."""
    found: dict[str, list[str]] = {}
    for name in names():
        rule = rule_named(name)
        if rule is not None and rule is not elementwise:
            found.setdefault(rule.__module__.rpartition(".")[2], []).append(name)
    return found


def passing() -> list[str]:
    return [name for name in names() if rule_named(name) is elementwise]


def kept() -> dict[str, list[str]]:
    """The operators without a rule, by group."""
    found: dict[str, list[str]] = {group: [] for group in (*_GROUPS, "others")}
    for name in names():
        if rule_named(name) is None:
            groups = (group for group, pattern in _GROUPS.items() if re.fullmatch(pattern, name))
            found[next(groups, "others")].append(name)
    return found


def counts() -> dict[str, int]:
    return {
        "followed": sum(map(len, followed().values())),
        "elementwise": len(passing()),
        "kept": sum(map(len, kept().values())),
    }


def filled(text: str) -> str:
    """The page with everything between its markers regenerated."""
    parts: dict[str, Callable[[], str]] = {
        "counts": _counts,
        "followed": lambda: _table("rules in `compress/graph/`", "operators", followed()),
        "elementwise": lambda: _listed(passing()),
        "kept": lambda: _table("kind", "operators", kept()),
    }
    return _MARKED.sub(lambda found: f"{found[1]}\n{parts[found['what']]()}\n\n{found[3]}", text)


def _counts() -> str:
    rows = [f"| {kind} | {count:,} |" for kind, count in counts().items()]
    total = sum(counts().values())
    version = torch.__version__.partition("+")[0]
    return "\n".join([f"| torch {version} | operators |", "|---|---|", *rows, f"| all | {total:,} |"])


def _table(first: str, second: str, groups: dict[str, list[str]]) -> str:
    rows = [f"| {group} ({len(found)}) | {_listed(found)} |" for group, found in sorted(groups.items()) if found]
    return "\n".join([f"| {first} | {second} |", "|---|---|", *rows])


def _listed(found: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in found)


if __name__ == "__main__":
    main()
