"""`Exact`: the decision in float64, if the networks' own dtype is too coarse."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.inputs import Inputs
from compress.proof.comparing import (
    FLOOR,
    NO_SCALE,
    DiffersError,
    Scale,
    compare,
    compare_changes,
    continuous,
    largest,
    numbers,
    require_alike,
    scales_of,
)
from compress.proof.outputs import Outputs, Path, named
from compress.proof.precision import InFloat64, widened
from compress.proof.running import Passes

_OWN_SLACK = 0.02
"""Relative to an output's variation: largest difference between the network's own precision and float64."""

_LIMIT = 5e-3
"""Relative to an output's variation: larger float32 rounding errors would hide a file that is wrong by one percent."""

_SHIFT = 1e-3
"""Relative to an output's variation: largest shift of all outputs by folded constants, rounded to the dtype."""


class Exact:
    """Both networks in float64; no candidate if it is a file.

    The constructor and `outputs` may raise any error if a network cannot run in float64.

    Args:
        probe: two inputs of the same shape, which show how much the outputs vary.
    """

    def __init__(self, reference: nn.Module, candidate: nn.Module | None, probe: tuple[Inputs, Inputs]) -> None:
        self.reference, self._probe = InFloat64(reference), probe
        self.candidate = None if candidate is None else InFloat64(candidate)
        self._passes = {network: Passes() for network in (self.reference, self.candidate) if network}
        self._changed = self._on_the_probe(self.reference)
        self.scales = scales_of(*self._changed)

    def _ran(self, network: InFloat64, given: Inputs) -> Outputs:
        found = self._passes[network].run(network, given).outputs  # constants among them have their own dtype
        return Outputs({path: widened(tensor) for path, tensor in found.tensors.items()}, found.plain)

    def _on_the_probe(self, network: InFloat64) -> tuple[Outputs, Outputs]:
        one, other = self._probe
        return self._ran(network, one), self._ran(network, other)

    def outputs(self, given: Inputs) -> tuple[Outputs, Outputs | None]:
        """The outputs of the reference and of the candidate."""
        return self._ran(self.reference, given), self._ran(self.candidate, given) if self.candidate else None

    def of_networks(self, own: Outputs, found: Outputs, exact: tuple[Outputs, Outputs], tolerance: float) -> float:
        """The difference in float64; `own` and `found` are the outputs in the networks' own precision."""
        noise = Noise(own, exact[0])
        steps = [torch.finfo(tensor.dtype).eps for tensor in own.tensors.values() if continuous(tensor)]
        tolerance = max([tolerance, *(step / 2 for step in steps)])  # folded constants are rounded to the dtype
        difference = compare(*exact, self.scales, tolerance, FLOOR, noise.shifts(self.scales))
        assert self.candidate is not None
        floor = max([FLOOR, *(step / 256 for step in steps)])
        compare_changes(self._changed, self._on_the_probe(self.candidate), self.scales, tolerance, floor)
        noise.require_like(found, self.scales, most=16, slack=_OWN_SLACK)
        return difference

    def of_file(self, own: Outputs, found: Outputs, expected: Outputs) -> float:
        """The difference in the network's own precision; a file has no other one."""
        Noise(own, expected).require_like(found, self.scales, most=2, limit=_LIMIT)
        return compare(own, found, self.scales, math.inf)


@dataclass(frozen=True)
class Noise:
    """Rounding errors of a network's own precision: its outputs, and those in float64, for the same input.

    A candidate that computes the same in that precision has errors of this size; a wrong one has larger errors.
    """

    own: Outputs
    exact: Outputs

    def shifts(self, scales: Mapping[Path, Scale]) -> dict[Path, Tensor]:
        """Largest shift of the entries of each output by rounding to the network's dtype, whatever the input."""
        shifts: dict[Path, Tensor] = {}
        for path, tensor in self.own.tensors.items():
            if continuous(tensor) and path in self.exact.tensors:
                scale, exact, own = scales.get(path, NO_SCALE), numbers(self.exact.tensors[path]), numbers(tensor)
                step, usual = torch.finfo(tensor.dtype).eps, _usual(exact, scale)
                least = 8 * step * torch.where(usual, exact.abs(), 0.0)
                noise = 8 * largest((own - exact).abs()[usual]) if own.shape == exact.shape else 0.0
                constant = scale.variation <= 1e-5 * largest(least) / (8 * step)
                most = math.inf if constant else _SHIFT * scale.variation
                shifts[path] = torch.minimum(noise + least, least.clamp(min=most))
        return shifts

    def require_like(
        self, found: Outputs, scales: Mapping[Path, Scale], *, most: float, slack: float = 0.0, limit: float = math.inf
    ) -> None:
        """Raise DiffersError unless the errors of `found` are like those of the network itself.

        Args:
            most: largest ratio of their root mean squares; the ratio of the largest errors may be twice that.
            slack: an additional allowance, relative to an output's variation.
            limit: relative to an output's variation; larger rounding errors decide nothing.
        """
        require_alike(self.own, found)
        for path, own in self.own.tensors.items():
            if continuous(own) and path in self.exact.tensors:
                exact, scale = numbers(self.exact.tensors[path]), scales.get(path, NO_SCALE)
                step = torch.finfo(own.dtype).eps
                if exact.shape != own.shape:
                    raise DiffersError("cannot be decided", f"{named(path)} has another shape in float64")
                values = _comparable(numbers(own), exact, numbers(found.tensors[path]), scale, step, named(path))
                unit = scale.variation
                _require_noise(values, step, (most, slack * unit, limit * unit), named(path))


def _usual(exact: Tensor, scale: Scale) -> Tensor:
    """Entries that are not far larger than all that vary, unlike a dtype's smallest number."""
    return exact.isfinite() & ((exact.abs() <= 1e4 * scale.magnitude) | (scale.variation == 0))


def _comparable(
    own: Tensor, exact: Tensor, other: Tensor, scale: Scale, step: float, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The entries with measurable rounding errors; others, such as the dtype's smallest number, are equal in both."""
    usual = _usual(exact, scale) & own.isfinite() & other.isfinite()
    rest = ~usual & own.isfinite() & other.isfinite()
    if bool(((own - other).abs() > 16 * step * own.abs())[rest].any()) or bool((own.isnan() != other.isnan()).any()):
        raise DiffersError("computes something else", f"{name} differs where it is constant, or not finite")
    return own[usual], exact[usual], other[usual]


def _require_noise(
    values: tuple[Tensor, Tensor, Tensor], step: float, bounds: tuple[float, float, float], name: str
) -> None:
    (own, exact, other), (most, slack, limit) = values, bounds
    if not own.numel():
        return
    least, error, noise = step * exact.abs(), (other - exact).abs(), (own - exact).abs()
    if most * _rms(noise) > limit + 4 * _rms(least):
        raise DiffersError(
            "cannot be distinguished from a wrong one",
            f"rounding errors of {_rms(noise):.3g} in {name} would hide a mistake: export model.float(), or .double()",
        )
    most *= 1 + 10 / math.sqrt(own.numel())  # the fewer the numbers, the more their errors vary
    allowed, largest_allowed = most * _rms(noise) + _rms(least), 2 * most * largest(noise + least)
    if _rms(error) > allowed + slack or largest(error) > largest_allowed + 100 * slack:
        raise DiffersError(
            "computes something else",
            f"{name} differs by {_rms(error):.3g} from what float64 gives, where rounding explains {_rms(noise):.3g}",
        )


def _rms(values: Tensor) -> float:
    return math.sqrt(float(values.square().mean()))
