"""Which weights or nodes are pruned first: generated from `compress.select.criteria`."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from compress.recipe.schema.described import Described, part_of
from compress.recipe.schema.parts import spelled_out
from compress.select import criteria


class CriterionPart(Described):
    kind: str

    def build(self) -> criteria.Criterion:
        """The criterion itself."""
        found: criteria.Criterion = self.member(**self.member.decided_by(self.kind), **self.options())
        return found


_PARTS: Final = tuple(
    part_of(CriterionPart, member, member.words, member.decided_by(member.words[0])) for member in criteria.CRITERIA
)
CRITERIA: Final = {word: part for part in _PARTS for word in part.member.words}
"""The part of every criterion, by its name."""

if TYPE_CHECKING:
    AnyCriterion = CriterionPart
    Criterion = CriterionPart
else:
    CriterionName = Literal[tuple(CRITERIA)]
    AnyCriterion = Annotated[reduce(or_, _PARTS), Field(discriminator="kind")]
    Criterion = Annotated[
        AnyCriterion, BeforeValidator(spelled_out, json_schema_input_type=CriterionName | AnyCriterion)
    ]
