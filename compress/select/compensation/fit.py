"""`Fit`: the kept entries of a matrix for which its products come closest to wanted ones, by least squares.

The wanted products are those of the dense network, the inputs those of the pruned one. So the fit makes up for pruned
inputs, and for what the layers before it could not reach (He et al., "Channel Pruning for Accelerating Very Deep
Neural Networks", 2017). Where each row has its own pruned entries, the solution is the one that the updates of the
optimal brain surgeon lead to (Hassibi and Stork, "Second order derivatives for network pruning", 1993).
"""

import torch
from torch import Tensor

RIDGE = 1.0
"""How many more samples, for each entry of a row, say that the weight remains as it is: the price of a change."""

_STRIP = 256
"""Rows of a product that are computed together."""

_STEPS = 300
_CLOSE = 1e-6
_LEAST = torch.finfo(torch.float32).tiny


class Fit:
    """Sums over batches, and the change of the matrix that they call for.

    A matrix is [groups, outputs, entries]; only entries that are kept change.
    """

    def __init__(self, keep: Tensor, *, intercept: bool) -> None:
        """
        Args:
            keep: bool [groups, outputs, entries].
            intercept: whether a constant [groups, outputs] may change as well.
        """
        self._intercept = intercept
        rows = keep.any(2)
        self._used = keep.any(1)  # [groups, entries]
        self._all_used = bool(self._used.all())
        self._alike = bool((keep == (self._used[:, None, :] & rows[:, :, None])).all())
        self._keep = torch.cat([keep, rows[..., None]], dim=2) if intercept else keep
        self._rows = 0
        self._squares: Tensor | None = None
        self._products: Tensor | None = None

    def add(self, inputs: Tensor, missing: Tensor) -> None:
        """Add a batch.

        Args:
            inputs: of the pruned network, [groups, rows, entries].
            missing: the wanted products less those of the matrix as it is, [groups, rows, outputs].
        """
        if not self._all_used:
            inputs = inputs * self._used[:, None, :]
        if self._intercept:
            inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], dim=2)
        self._rows += inputs.shape[1]
        squares, products = _exact(squares_of(inputs)), _exact(inputs.mT @ missing)
        if self._squares is None or self._products is None:
            self._squares, self._products = squares, products
        else:
            self._squares += squares
            self._products += products

    def change(self) -> tuple[Tensor, Tensor | None]:
        """What to add to the matrix, and to the constant, in float64; not finite where the inputs are not."""
        assert self._squares is not None
        assert self._products is not None
        squares, products, keep = self._squares, self._products, self._keep.to(self._squares.device)
        squares = squares + self._ridge(squares)
        if self._alike:
            found = torch.cholesky_solve(products, torch.linalg.cholesky_ex(squares).L).mT * keep
        else:
            found = _row_by_row(squares, products.mT, keep)
        constant = found[..., -1] if self._intercept else None
        found = found[..., :-1] if self._intercept else found
        return found, constant

    def _ridge(self, squares: Tensor) -> Tensor:
        """A diagonal: of each entry the mean square of them all, once for each entry; the constant is free."""
        own = squares.diagonal(dim1=1, dim2=2)
        entries = own[:, :-1] if self._intercept else own
        living = (entries > 0).sum(1).clamp_min(1)
        mean = entries.sum(1) / living / max(1, self._rows)
        price = (RIDGE * living * mean).clamp_min(_LEAST)[:, None].expand_as(own).clone()
        if self._intercept:
            price[:, -1] = _LEAST
        return torch.diag_embed(price)


def squares_of(rows: Tensor) -> Tensor:
    """`rows.mT @ rows` [groups, entries, entries] of [groups, rows, entries]: its upper half, mirrored."""
    entries = rows.shape[2]
    if entries < 2 * _STRIP:
        return rows.mT @ rows
    found = rows.new_empty(len(rows), entries, entries)
    for begin in range(0, entries, _STRIP):
        end = min(begin + _STRIP, entries)
        strip = rows[:, :, begin:end].mT @ rows[:, :, begin:]
        found[:, begin:end, begin:] = strip
        found[:, end:, begin:end] = strip[:, :, end - begin :].mT
    return found


def in_float(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values if values.dtype == torch.float64 else values.float()


def _exact(values: Tensor) -> Tensor:
    """In float64, which Apple's devices lack."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _row_by_row(squares: Tensor, products: Tensor, keep: Tensor) -> Tensor:
    """Least squares over the entries that each row keeps, for all rows at once, by conjugate gradients."""
    scale = squares.diagonal(dim1=1, dim2=2)[:, None, :].rsqrt()
    squares = squares * scale * scale.mT
    left = products * scale * keep
    found, along = torch.zeros_like(left), left.clone()
    before = left.square().sum(2, keepdim=True)
    close = before * _CLOSE**2
    for _ in range(_STEPS):
        if bool((before <= close).all()):
            break
        image = (along @ squares) * keep
        length = before / (along * image).sum(2, keepdim=True).clamp_min(_LEAST)
        found += length * along
        left -= length * image
        now = left.square().sum(2, keepdim=True)
        along = left + now / before.clamp_min(_LEAST) * along
        before = now
    return found * scale
