"""How much two tensors may differ, and whether they differ by more.

The unit of a tolerance is how much an output varies over the inputs, not how large it is: an output of 1000 that varies
by 0.1 must agree within the tolerance times 0.1, and a column that is -1e9 for every input does not count. Infinities
and NaN must be at the same places; integers, truth values and text must be equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.proof.outputs import Outputs, Path, named
from compress.wording import count_of

LENIENCE = 100
"""A column or row of an output is judged by the variation of the whole tensor, and at most this many times its own."""

FLOOR = 1e-12
"""Relative to an entry's magnitude: differences that a comparison in float64 cannot detect."""


class DiffersError(Exception):
    """how: a verb for the candidate's result. rounding: whether float64 could decide. exact: whether it has decided."""

    def __init__(self, how: str, detail: str, *, rounding: bool = False, exact: bool = False) -> None:
        super().__init__(detail)
        self.how, self.rounding, self.exact = how, rounding, exact


@dataclass(frozen=True)
class Scale:
    """How much an output varies over the inputs.

    variation: the largest difference of an entry between two inputs, but at most `LENIENCE` times their median; fill
        values of masks do not count.
    slices: the largest difference for each index of each dimension.
    magnitude: the largest of the entries that vary.
    """

    variation: float
    slices: tuple[Tensor, ...]
    magnitude: float

    def of(self, output: Tensor) -> Tensor:
        """The unit for each entry of an output, which may have more rows than the one that was measured."""
        unit = torch.tensor(self.variation, dtype=torch.float64, device=output.device)
        if output.ndim == len(self.slices):
            for dim, along in enumerate(self.slices):
                if len(along) == output.shape[dim] > 1:
                    shape = [-1 if place == dim else 1 for place in range(output.ndim)]
                    unit = torch.minimum(unit, (LENIENCE * along).view(shape))
        return unit


NO_SCALE = Scale(0.0, (), 0.0)


def scale_of(one: Tensor, other: Tensor) -> Scale:
    """The variation of two outputs for inputs of the same shape."""
    one, other = numbers(one), numbers(other)
    if one.shape != other.shape:  # as the boxes that are found in a picture
        finite = one[one.isfinite()]
        spread = float(finite.max() - finite.min()) if finite.numel() else 0.0
        return Scale(spread, (), spread)
    varies = (one - other).abs()
    varies = torch.where(varies.isfinite(), varies, 0.0)
    unfilled = torch.where(_filled(one, other), 0.0, varies)
    varies = unfilled if bool(unfilled.any()) else varies
    nonzero = varies[varies > 0]
    if not nonzero.numel():
        return NO_SCALE
    variation = min(float(nonzero.max()), LENIENCE * float(nonzero.median()))
    dims = range(one.ndim)
    slices = tuple(varies.amax([place for place in dims if place != dim]) if one.ndim > 1 else varies for dim in dims)
    return Scale(variation, slices, float(torch.where(varies > 0, one.abs(), 0.0).max()))


def _filled(one: Tensor, other: Tensor) -> Tensor:
    """Entries that may be fill values of a mask in either: the smallest or the largest number, if it is repeated."""
    filled = torch.zeros_like(one, dtype=torch.bool)
    both = torch.stack([one, other])
    finite = both[both.isfinite()]
    for extreme in (finite.min(), finite.max()) if finite.numel() else ():
        places = both == extreme
        if int(places.sum()) > 1:
            filled |= places.any(0)
    return filled


def scales_of(one: Outputs, other: Outputs) -> dict[Path, Scale]:
    return {path: scale_of(tensor, other.tensors.get(path, tensor)) for path, tensor in one.tensors.items()}


def compare(
    expected: Outputs,
    found: Outputs,
    scales: Mapping[Path, Scale],
    tolerance: float,
    floor: float = 0.0,
    shifts: Mapping[Path, Tensor] | None = None,
) -> float:
    """The largest difference of any number; raises DiffersError where one is larger than allowed.

    floor: an additional allowance, relative to an entry's magnitude. shifts: one for each entry, as an absolute number.
    """
    require_alike(expected, found)
    worst = 0.0
    for path, one in expected.tensors.items():
        other = found.tensors[path]
        if not continuous(one):
            _require_equal(one, other, named(path))
            continue
        one, other = numbers(one), numbers(other)
        difference = _finite_difference(one, other, named(path))
        allowed = tolerance * scales.get(path, NO_SCALE).of(one) + floor * _magnitudes(one)
        if shifts and path in shifts:
            allowed = allowed + shifts[path]
        _require_within(difference, allowed, named(path))
        worst = max(worst, largest(difference))
    return worst


def compare_changes(
    expected: tuple[Outputs, Outputs],
    found: tuple[Outputs, Outputs],
    scales: Mapping[Path, Scale],
    tolerance: float,
    floor: float,
) -> None:
    """Compare how outputs change from one input to another; a constant added to all of them does not count.

    A constant folded into a bias is rounded to the dtype of the bias, which shifts the outputs of all inputs equally.

    Args:
        floor: for each entry, a difference that the networks' own dtype cannot represent.
    """
    for path, scale in scales.items():
        outputs = [side.tensors.get(path) for side in (*expected, *found)]
        tensors = [numbers(tensor) for tensor in outputs if tensor is not None and continuous(tensor)]
        if len(tensors) == 4 and all(tensor.shape == tensors[0].shape for tensor in tensors):
            one, two, other_one, other_two = tensors
            difference = ((other_one - one) - (other_two - two)).abs()
            difference = torch.where(difference.isfinite(), difference, 0.0)
            allowed = tolerance * scale.of(one) + floor * (_magnitudes(one) + _magnitudes(two))
            _require_within(difference, allowed, f"from one input to another, {named(path)}")


def require_alike(expected: Outputs, found: Outputs) -> None:
    """Raise DiffersError unless both have the same paths, plain values, shapes and dtypes."""
    if len(expected.tensors) != len(found.tensors):
        raise DiffersError(
            "computes something else", f"{count_of(len(found.tensors), 'output')} instead of {len(expected.tensors)}"
        )
    for path, one in expected.tensors.items():
        other = found.tensors.get(path)
        if other is None:
            raise DiffersError("computes something else", f"{named(path)} is missing")
        for what, right, wrong in (("shape", [*one.shape], [*other.shape]), ("dtype", one.dtype, other.dtype)):
            if right != wrong:
                raise DiffersError("computes something else", f"{named(path)} has the {what} {wrong}, not {right}")
    for place in {**expected.plain, **found.plain}:
        missing = place not in expected.plain or place not in found.plain
        if missing or expected.plain[place] != found.plain[place]:
            there, here = (side.plain.get(place, "nothing") for side in (expected, found))
            raise DiffersError("computes something else", f"{named(place)} is {here!r}, not {there!r}")


def numbers(tensor: Tensor) -> Tensor:
    """In float64; a complex tensor's real and imaginary parts beside each other."""
    tensor = tensor.detach()
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()).double()


def continuous(tensor: Tensor) -> bool:
    """Whether its numbers are rounded; all others have to be equal."""
    return tensor.is_floating_point() or tensor.is_complex()


def _magnitudes(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values.abs(), 0.0)


def largest(difference: Tensor) -> float:
    return float(difference.max()) if difference.numel() else 0.0


def _require_equal(one: Tensor, other: Tensor, name: str) -> None:
    unequal = one != other
    if bool(unequal.any()):
        raise DiffersError(
            "computes something else",
            f"{name} differs in {int(unequal.sum())} of its {count_of(one.numel(), 'value')}, which are {one.dtype} "
            "and have to be equal",
            rounding=True,
        )


def _finite_difference(one: Tensor, other: Tensor, name: str) -> Tensor:
    """|one - other|, 0 where both are the same infinity or both NaN."""
    same = (one == other) | (one.isnan() & other.isnan())
    if bool(((~one.isfinite() | ~other.isfinite()) & ~same).any()):
        raise DiffersError(
            "computes something else",
            f"{name} has infinities or NaN at other places, or of another sign",
            rounding=True,
        )
    return torch.where(same, 0.0, (one - other).abs())


def _require_within(difference: Tensor, allowed: Tensor, name: str) -> None:
    excess = difference - allowed
    if difference.numel() and float(excess.max()) > 0:
        place = int(excess.argmax())
        there = float(allowed.expand_as(difference).flatten()[place])
        raise DiffersError(
            "computes something else",
            f"{name} differs by {float(difference.flatten()[place]):.3g}, allowed is {there:.3g}",
            rounding=True,
        )
