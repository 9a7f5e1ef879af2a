"""What all stages of a run share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import Result

from compress.graph import coupling

AXES = "stages.0.criterion=principal_axes"


@pytest.mark.parametrize(("command", "criterion", "times"), [("apply", AXES, 2), ("plan", "export=[]", 1)])
def test_a_network_is_traced_once_unless_its_structure_changes(
    run: Callable[..., Result],
    recipe: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    criterion: str,
    times: int,
) -> None:
    """Rehearsing, choosing, slimming and measuring share it; principal axes put a layer into the network."""
    traced: list[nn.Module] = []

    def counted(model: nn.Module, *how: Any, trace: Callable[..., object] = coupling.trace, **more: Any) -> object:
        traced.append(model)
        return trace(model, *how, **more)

    monkeypatch.setattr(coupling, "trace", counted)
    out = ["-o", tmp_path / "out"] if command == "apply" else []
    run(command, recipe, trained, *out, "--set", criterion)
    assert len(traced) == times
