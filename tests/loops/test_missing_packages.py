import importlib
import sys

import pytest

from compress.errors import InputError


@pytest.mark.parametrize(
    ("module", "packages", "extra"),
    [
        ("lightning_callback", ["lightning", "lightning.pytorch", "pytorch_lightning"], r"softprune\[lightning\]"),
        ("trainer_callback", ["transformers"], r"softprune\[transformers\]"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, packages: list[str], extra: str
) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)  # as if it was not installed
    monkeypatch.delitem(sys.modules, f"compress.loops.{module}", raising=False)
    with pytest.raises(ImportError, match=extra) as caught:
        importlib.import_module(f"compress.loops.{module}")
    assert isinstance(caught.value, InputError)
