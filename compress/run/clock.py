"""How a run spends its wall time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from compress.results import WallTime


class Clock:
    """Charges every moment since `started` to exactly one phase: the innermost open one, or "other"."""

    def __init__(
        self,
        started: float | None = None,
        before: str = "other",
        on_phase: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Count from `started`, a time of `time.perf_counter`; the time since then belongs to the phase `before`.

        Args:
            on_phase: called with the name of each new phase.
        """
        self._since = time.perf_counter()
        self.started = self._since if started is None else started
        self.phases: dict[str, float] = {before: self._since - self.started}
        self._open = ["other"]
        self._on_phase = on_phase

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._open.append(name)
        self._on_phase(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()
            self._on_phase(self._open[-1])

    def spent(self, name: str) -> float:
        """Seconds charged to a phase so far."""
        self._charge()
        return self.phases.get(name, 0.0)

    def split(self) -> WallTime:
        """Total and phases in seconds, and the share of the total that was training."""
        self._charge()
        total = self._since - self.started
        return {
            "total": total,
            "training_share": self.spent("training") / total,
            "phases": dict(self.phases),
        }

    def state_dict(self) -> dict[str, Any]:
        self._charge()
        return {"phases": dict(self.phases)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Add the time spent before an interruption."""
        for name, seconds in state["phases"].items():
            self.phases[name] = self.phases.get(name, 0.0) + seconds
            self.started -= seconds

    def _charge(self) -> None:
        now = time.perf_counter()
        name = self._open[-1]
        self.phases[name] = self.phases.get(name, 0.0) + now - self._since
        self._since = now
