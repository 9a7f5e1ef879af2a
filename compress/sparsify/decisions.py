"""What `compress.sparse` has decided on each layer, as plain values and as a table."""

from dataclasses import dataclass

from compress.wording import count_of


@dataclass(frozen=True)
class SparseLayer:
    """The decision on one layer.

    zeros: share of zero weights. dense_ms, sparse_ms: median time of its calls in a pass; None where not measured.
    why: the reason why it remains dense; "" of a sparse one.
    """

    name: str
    shape: tuple[int, ...]
    zeros: float
    dense_ms: float | None = None
    sparse_ms: float | None = None
    why: str = ""

    @property
    def form(self) -> str:
        """The word "csr" or "dense"."""
        return "dense" if self.why else "csr"

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        times = ("-" if ms is None else f"{ms:.3g}" for ms in (self.dense_ms, self.sparse_ms))
        form = f"{self.form}: {self.why}" if self.why else self.form
        return self.name or "(the network)", "x".join(map(str, self.shape)), f"{self.zeros:.1%}", *times, form


@dataclass(frozen=True)
class SparseReport:
    """The decisions and measurements of `compress.sparse`; `print` shows a table.

    layers: every Linear and convolutional layer. batch_size, threads: of the measurement.
    dense_ms, sparse_ms: median milliseconds of a pass through the network as it was, and as it is; with one thread its
        processor time, with several the time that passes.
    """

    layers: tuple[SparseLayer, ...]
    batch_size: int
    threads: int
    dense_ms: float
    sparse_ms: float

    @property
    def converted(self) -> tuple[str, ...]:
        """The names of the layers that became sparse."""
        return tuple(layer.name for layer in self.layers if layer.form == "csr")

    def __str__(self) -> str:
        rows = [("layer", "shape", "zeros", "dense ms", "sparse ms", "form"), *(layer.row for layer in self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        threads = count_of(self.threads, "thread")
        sparse = count_of(len(self.converted), "sparse layer")
        times = f"dense {self.dense_ms:.3g} ms, with {sparse} {self.sparse_ms:.3g} ms"
        return "\n".join([*lines, f"the network at batch size {self.batch_size}, {threads} of torch: {times}"])
