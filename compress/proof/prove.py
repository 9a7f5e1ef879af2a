"""`prove_same` and `prove_file`: run both on inputs that exercise them, and compare everything that they return.

float32 decides if the two agree within the tolerance. If they do not, rounding may be the reason, and copies of both in
float64 decide. For networks in bfloat16 and float16, float64 always decides.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.errors import InputError, ProofError
from compress.graph.untouched import untouched
from compress.inputs import Inputs, inputs_of
from compress.proof.comparing import FLOOR, DiffersError, Scale, compare, numbers, require_alike, scales_of
from compress.proof.drawing import Drawn, drawn, inputs_like, paired
from compress.proof.exact import Exact
from compress.proof.outputs import Outputs, Path, named
from compress.proof.parting import parting
from compress.proof.precision import COARSE, dtypes_of
from compress.proof.randomness import Draw, draws_of
from compress.proof.running import Network, Passes, Ran, run
from compress.run_warnings import RunWarning

FILE_BATCHES = (1, 7)
"""Neither is the batch size of traces, so a batch size that became a constant of the file is detected."""

_MOST_SAMPLES, _MOST_ENTRIES = 256, 2**18
"""The number of samples to draw if a few do not make the outputs vary."""


class ConstantOutputsWarning(RunWarning):
    """The outputs of a network do not depend on its inputs beyond the tolerance, so a proof shows nothing."""

    kind = "no_proof"


@dataclass(frozen=True)
class Proven:
    """The result of a proof.

    difference: the largest absolute difference of any number. precision: what decided: the network's own dtype or
    "float64". constant: outputs that do not depend on the inputs beyond the tolerance. draws: operators that draw
    random numbers, with their modules; both networks had equal seeds.
    """

    difference: float
    precision: str
    constant: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()


def prove_same(
    reference: nn.Module,
    candidate: nn.Module,
    inputs: Iterable[Inputs],
    tolerance: float,
    passes: Passes | None = None,
    *,
    locate: bool = True,
) -> Proven:
    """Run both in evaluation mode on every input and compare all outputs.

    Args:
        inputs: see `inputs_like`; more batch sizes than one show a size that became a constant.
        tolerance: for each output, relative to how much it varies over the inputs.
        passes: those of the reference, if several candidates are compared with it on the same `Drawn` objects; it then
            runs only once on each of them.
        locate: whether an error names the layer, which needs another pass of both.

    Raises:
        ProofError: an output differs by more, or the candidate does not run; names the output, and the first layer
            whose output differs among those whose output has the same shape in both.
        InputError: the reference itself does not run on an input, gives another output each time, or returns something
            that cannot be compared.

    Warns:
        ConstantOutputsWarning: no output depends on the inputs beyond the tolerance.
    """
    with untouched(reference) as one, untouched(candidate) as other:
        proof = _Proof(
            one, other, lambda given: given.call(other), tolerance, "The changed network", passes, locate=locate
        )
        return proof.of(inputs)


def prove_file(
    model: nn.Module, run: Callable[[Inputs], object], example: object, tolerance: float, what: str
) -> Proven:
    """Compare a file with the model in evaluation mode, on inputs like the example with `FILE_BATCHES` rows.

    The file's tensors are compared in the order in which the model returns its own, whatever they are nested in. Floats
    and arrays of numpy among the model's outputs are not in files.

    Args:
        run: returns the file's outputs for the arguments of a call.
        example: inputs of the model; see `inputs_like`.
        tolerance: of each output, relative to how much it varies over the inputs.
        what: the file, for the error text.

    Raises:
        ProofError: an output differs by more, or the file does not run.
        InputError: as `prove_same`.

    Warns:
        ConstantOutputsWarning: as `prove_same`.
    """
    with untouched(model) as network:
        return _Proof(network, None, run, tolerance, what).of(inputs_like(network, inputs_of(example), FILE_BATCHES))


def _by_magnitude(output: Tensor) -> Scale:
    largest = numbers(output)[output.isfinite()].abs().max() if bool(output.isfinite().any()) else torch.ones(())
    return Scale(float(largest), (), float(largest))


class _Proof:
    """One reference and one candidate.

    Args:
        candidate: absent if `run` runs a file.
        what: the candidate, for the error text.
        passes, locate: see `prove_same`.
    """

    def __init__(
        self,
        reference: nn.Module,
        candidate: nn.Module | None,
        run_candidate: Network,
        tolerance: float,
        what: str,
        passes: Passes | None = None,
        *,
        locate: bool = True,
    ) -> None:
        self._reference, self._candidate, self._run = reference, candidate, run_candidate
        self._tolerance, self._what = tolerance, what
        self._passes, self._locate = passes or Passes(), locate
        self._draws: list[Draw] = []
        self._drawing: tuple[str, ...] = ()  # in words
        self._precision = ""  # of the last decision that was not made in the network's own
        self._exact: Exact | None = None

    def of(self, inputs: Iterable[Inputs]) -> Proven:
        given = sorted(inputs, key=lambda one: one.rows)
        first, ran = self._expected(given[0])
        self._dtypes = dtypes_of(self._reference, first)
        self._probe = first, (first if isinstance(first, Drawn) else paired(first)).partner
        self._require_repeatable(ran)
        self._scales = self._scales_of(ran)
        if self._hardly_vary(ran) and (more := self._many(first)):
            given = [first, *given]
            first, ran = more
        constant = self._constant(ran)
        worst = self._compare(first, ran)
        for one in given[1:]:
            worst = max(worst, self._compare(*self._expected(one)))
        return Proven(worst, self._precision or self._own, constant, self._drawing)

    def _run_reference(self, given: Inputs) -> object:
        return given.call(self._reference)

    def _seen(self, ran: Ran) -> Ran:
        """The compared part of a pass; a file has only tensors."""
        return ran if self._candidate is not None else Ran(ran.outputs.in_files, ran.drew)

    def _expected(self, given: Inputs) -> tuple[Inputs, Ran]:
        """The outputs of the reference and their input: `Drawn.instead` if it does not run on drawn values."""
        try:
            return given, self._seen(self._passes.run(self._run_reference, given))
        except InputError:
            raise
        except Exception as error:
            if isinstance(given, Drawn) and given.instead:
                return self._expected(given.instead)
            shapes = " and ".join(str(list(tensor.shape)) for tensor in given.tensors)
            raise InputError(f"The network does not run on an input of shape {shapes}: {error}") from error

    def _scales_of(self, ran: Ran) -> Mapping[Path, Scale]:
        try:
            other = self._seen(self._passes.run(self._run_reference, self._probe[1]))
        except Exception:  # it runs on the example's own values only
            self._probe, other = (self._probe[0], self._probe[0]), ran
        return scales_of(ran.outputs, other.outputs)

    def _require_repeatable(self, ran: Ran) -> None:
        """Name the operators that draw random numbers; refuse networks that differ with equal seeds."""
        again = self._seen(self._passes.run(self._run_reference, self._probe[0], time=2))
        scales = scales_of(ran.outputs, again.outputs)
        unrepeated = any(scale.variation > self._own_bound * max(scale.magnitude, 1e-30) for scale in scales.values())
        if ran.drew or unrepeated:
            self._draws = draws_of(self._reference, lambda: self._run_reference(self._probe[0]))
            self._drawing = tuple(dict.fromkeys(map(str, self._draws))) or ("random numbers of Python or numpy",)
        if unrepeated:
            raise InputError(
                f"The network gives another output each time, for equal inputs and seeds ({', '.join(self._drawing)}): "
                "nothing can be proven. Let it draw from torch's global generator, or give it the noise as an input."
            )

    @property
    def _own_bound(self) -> float:
        """Largest change by rounding, relative to an output's magnitude."""
        steps = [torch.finfo(dtype).eps for dtype in self._dtypes]
        return max([self._tolerance, *(16 * step for step in steps)])

    def _many(self, first: Inputs) -> tuple[Inputs, Ran] | None:
        """Many small samples, since few may not make the outputs vary; None if the samples are large."""
        entries = sum(tensor.numel() for tensor in first.tensors) // first.rows
        count = min(_MOST_SAMPLES, _MOST_ENTRIES // max(1, entries))
        if count <= first.rows:
            return None
        more = drawn(first, count)
        with suppress(InputError):
            given, ran = self._expected(more)
            self._probe = given, more.partner
            self._scales = self._scales_of(ran)
            return given, ran
        return None

    def _varying(self, ran: Ran) -> dict[Path, bool]:
        """For each output with numbers, whether it varies beyond the tolerance."""
        scales = {path: scale for path, scale in self._scales.items() if ran.outputs.tensors[path].numel()}
        return {path: scale.variation > self._tolerance * scale.magnitude for path, scale in scales.items()}

    def _hardly_vary(self, ran: Ran) -> bool:
        return not any(self._varying(ran).values())

    def _constant(self, ran: Ran) -> tuple[str, ...]:
        """Outputs that do not depend on the inputs; warns if none depends on them."""
        constant = [path for path, varies in self._varying(ran).items() if not varies]
        for path, tensor in ran.outputs.tensors.items():
            if tensor.numel() and bool(tensor.isnan().all()):
                raise ProofError(f"{named(path)} of the network is NaN for every input, which proves nothing.")
        if self._hardly_vary(ran):
            warnings.warn(
                "The outputs do not depend on the inputs beyond the tolerance; this proves nothing. Train the network, "
                "or let its norms measure their statistics first.",
                ConstantOutputsWarning,
                stacklevel=5,
            )
        if self._candidate is None:  # a file has no float64 to tell rounding from what hardly varies
            self._scales = {**self._scales, **{path: _by_magnitude(ran.outputs.tensors[path]) for path in constant}}
        return tuple(named(path) for path in constant)

    def _compare(self, given: Inputs, expected: Ran) -> float:
        try:
            return self._difference(given, expected)
        except DiffersError as error:
            raise ProofError(self._refusal(error, given)) from error

    def _difference(self, given: Inputs, expected: Ran) -> float:
        found = self._found(given, expected.outputs)
        exact = self._dtypes <= {torch.float64, torch.complex128}
        try:
            require_alike(expected.outputs, found.outputs)
            if self._candidate and self._dtypes & COARSE:
                raise DiffersError("cannot be decided", f"{self._own} is too coarse", rounding=True)
            floor = min(FLOOR, self._tolerance) if exact else 0.0
            return compare(expected.outputs, found.outputs, self._scales, self._tolerance, floor)
        except DiffersError as error:
            if self._drawing and self._draws_otherwise(given):
                raise self._another_count() from error
            if exact or not error.rounding:
                raise
            return self._decide(given, expected.outputs, found.outputs, error)

    def _found(self, given: Inputs, expected: Outputs) -> Ran:
        try:
            ran = self._seen(run(self._run, given))
        except Exception as error:
            raise DiffersError("fails", str(error)) from error
        if self._candidate is None and len(ran.outputs.tensors) == len(expected.tensors):
            tensors = dict(zip(expected.tensors, ran.outputs.tensors.values(), strict=True))
            return Ran(Outputs(tensors, expected.plain), ran.drew)
        return ran

    def _decide(self, given: Inputs, own: Outputs, found: Outputs, why: DiffersError) -> float:
        """The difference in float64, if the networks' own precision is too coarse."""
        try:
            exact = self._exact = self._exact or Exact(self._reference, self._candidate, self._probe)
            expected, other = exact.outputs(given)
        except Exception as error:
            return self._undecided(own, found, why, error)
        if other is None:
            difference, self._precision = exact.of_file(own, found, expected), f"{self._own}, by its rounding errors"
            return difference
        try:
            difference = exact.of_networks(own, found, (expected, other), self._tolerance)
        except DiffersError as error:
            raise DiffersError(error.how, f"{error} in float64", exact=True) from error
        self._precision = "float64"
        return difference

    def _undecided(self, own: Outputs, found: Outputs, why: DiffersError, error: Exception) -> float:
        """Without float64, coarse dtypes have a separate bound, and float32 has none."""
        if not self._dtypes & COARSE:
            raise DiffersError(
                why.how, f"{why} in {self._own}, and float64 cannot show whether that is rounding: {error}"
            ) from error
        self._precision = self._own
        return compare(own, found, self._scales, self._own_bound)

    @property
    def _own(self) -> str:
        return "/".join(sorted(str(dtype).removeprefix("torch.") for dtype in self._dtypes)) or "integers"

    def _draws_otherwise(self, given: Inputs) -> bool:
        """Whether the candidate draws other random numbers with equal seeds; a file has its own generator."""
        if self._candidate is None:
            return True
        expected = draws_of(self._reference, lambda: self._run_reference(given))
        found = draws_of(self._candidate, lambda: self._run(given))
        return [draw.count for draw in expected] != [draw.count for draw in found]

    def _another_count(self) -> ProofError:
        return ProofError(
            f"{self._what} draws other random numbers than the network ({', '.join(self._drawing)}), so that their "
            "outputs cannot be compared: give the network the noise as an input, switch the drawing off in evaluation "
            "mode, or keep the width that it is drawn for."
        )

    def _refusal(self, error: DiffersError, given: Inputs) -> str:
        if self._candidate is None:
            return f"{self._what} {error.how} at batch size {given.rows}: {error}"
        if not self._locate:
            return f"{self._what} {error.how}: {error} (batch size {given.rows})"
        exact, where = self._exact if error.exact else None, ""
        if exact and exact.candidate:
            where = parting(
                (exact.reference.module, exact.reference),
                (exact.candidate.module, exact.candidate),
                given,
                self._tolerance,
            )
        else:
            where = parting(
                (self._reference, self._run_reference), (self._candidate, self._run), given, self._tolerance
            )
        return f"{self._what} {error.how} in {where}: {error} (batch size {given.rows})"
