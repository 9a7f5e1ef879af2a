"""How pruned entries are removed: generated from `compress.remove.removals`."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from compress.recipe.schema.described import Described, part_of
from compress.recipe.schema.parts import spelled_out
from compress.remove import removals
from compress.select import regrow


class RemovalPart(Described):
    kind: str

    def build(self, steps: int, steps_per_epoch: int) -> removals.Removal:
        """The removal itself, for a retraining of `steps` steps.

        Raises:
            InputError: its lengths do not fit each other.
        """
        lengths = {
            name: None if value is None else value.steps(steps_per_epoch)
            for name, value in self.options().items()
            if removals.is_length(self.member, name)
        }
        if "steps" in lengths and lengths["steps"] is None and not self.options().get("factor"):
            lengths["steps"] = max(1, round(self.member.default_share * steps))
        found: removals.Removal = self.member(**{**self.options(), **lengths})
        return found


class RegrowthPart(Described):
    def build(self) -> regrow.Regrowth:
        return regrow.Regrowth(**self.options())


_PARTS: Final = tuple(part_of(RemovalPart, member, member.words) for member in removals.REMOVALS)
REMOVALS: Final = {word: part for part in _PARTS for word in part.member.words}
"""The part of every removal, by its name."""

if TYPE_CHECKING:
    AnyRemoval = RemovalPart
    Removal = RemovalPart
    Regrowth = RegrowthPart
else:
    RemovalName = Literal[tuple(REMOVALS)]
    AnyRemoval = Annotated[reduce(or_, _PARTS), Field(discriminator="kind")]
    Removal = Annotated[AnyRemoval, BeforeValidator(spelled_out, json_schema_input_type=RemovalName | AnyRemoval)]
    Regrowth = part_of(RegrowthPart, regrow.Regrowth)
