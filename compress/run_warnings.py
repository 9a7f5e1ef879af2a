"""Every warning of this package: of a kind, with what was found and the way out.

They reach the user in the same form everywhere: on the terminal, in the JSON document of a command under `warnings`,
and from there at the top of the report.
"""

from collections.abc import Callable
from typing import ClassVar

from compress.results import Warned, WarningKind


class RunWarning(UserWarning):
    """What a run does as asked, but should be known.

    way_out: what to do about it; empty where the text says it.
    where: the key in the recipe with which the text begins, such as "stages.0.removal"; empty where there is none.
    """

    kind: ClassVar[WarningKind] = "other"

    def __init__(self, text: str, way_out: str = "", where: str = "") -> None:
        super().__init__(f"{text}; {way_out}" if way_out else text)
        self.text, self.way_out, self.where = text, way_out, where

    def at(self, place: Callable[[str], str]) -> "RunWarning":
        """The warning with the place of its key on the terminal; documents say the key alone, wherever the recipe is.

        Args:
            place: "file:line: stages.0.target" for "stages.0.target".
        """
        if self.where:
            self.args = (f"{place(self.where).removesuffix(self.where)}{self.args[0]}",)
        return self


def entry(message: Warning | str) -> Warned:
    """The warning as documents have it; those of other packages are of the kind "other"."""
    if not isinstance(message, RunWarning):
        return {"kind": "other", "text": str(message) or type(message).__name__}
    found: Warned = {"kind": message.kind, "text": message.text}
    if message.way_out:
        found["way_out"] = message.way_out
    if message.where:
        found["where"] = message.where
    return found


def text_of(warned: Warned) -> str:
    """A warning as one line."""
    return f"{warned['text']}; {warned['way_out']}" if "way_out" in warned else warned["text"]
