"""Modes that see each operator of an eager call, without the import of torch's compiler."""

import sys
from typing import Any

from torch._compile import _disable_dynamo
from torch.utils._python_dispatch import TorchDispatchMode


class EagerMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode of torch that imports its compiler only if somebody else has.

    torch turns the compiler off around each `__torch_dispatch__`, and imports it for that, which takes a second or two.
    Without the import, nothing can be compiled.
    """

    def __init_subclass__(cls, **given: Any) -> None:
        plain = vars(cls)["__torch_dispatch__"]
        super().__init_subclass__(**given)  # type: ignore[no-untyped-call]
        uncompiled = _disable_dynamo(plain, recursive=True)  # imports the compiler when it is first called

        def dispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = uncompiled if "torch._dynamo" in sys.modules else plain
            return call(self, *args, **kwargs)

        cls.__torch_dispatch__ = dispatch  # type: ignore[method-assign]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
