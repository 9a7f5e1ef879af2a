import sys
from pathlib import Path

import pytest
import torch

from compress import models
from compress.errors import InputError

FACTORIES = """
import torch
def build(width):
    return torch.nn.Linear(width, 1)
def number():
    return 3
def lazy():
    return torch.nn.Sequential(torch.nn.LazyLinear(2))
def lazy_statistics():
    return torch.nn.Sequential(torch.nn.LazyBatchNorm1d(affine=False))
constant = 4
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current directory, which is not on the path."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "my_broken_factories.py").write_text("def build(:\n")
    monkeypatch.delitem(sys.modules, "my_factories", raising=False)
    return "my_factories"


def test_a_factory_of_the_current_directory(factories: str) -> None:
    model = models.from_factory(f"{factories}:build", {"width": 3})
    assert model(torch.zeros(2, 3)).shape == (2, 1)


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("build", {}, 'write "my_module:build"'),
        ("my_factories:lazy", {}, r"0\.weight has no size before the first call .* on an example in lazy\."),
        ("my_factories:lazy_statistics", {}, r"0\.running_mean has no size before the first call"),
        (":build", {}, 'write "my_module:build"'),
        ("my_factories:", {}, 'write "my_module:build"'),
        ("my_absent_factories:build", {}, "my_absent_factories cannot be imported .*ModuleNotFoundError"),
        (".relative:build", {}, "cannot be imported"),
        ("my_broken_factories:build", {}, "cannot be imported .*SyntaxError"),
        ("my_factories:absent", {}, "my_factories has no function absent"),
        ("my_factories:constant", {}, "has no function constant"),
        ("my_factories:number", {}, "returned int; a model factory returns a torch.nn.Module"),
        ("my_factories:build", {}, r"build\(\) failed \(TypeError"),
        ("my_factories:build", {"width": -1}, r"build\(width=-1\) failed \(RuntimeError"),
    ],
)
def test_a_factory_that_does_not_work(factories: str, spec: str, args: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.from_factory(spec, args)
