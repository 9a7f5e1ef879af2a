"""The list of removals, which decide how chosen entries are removed; each has a file."""

from typing import Final

from compress.errors import InputError
from compress.options import options_of, require_word
from compress.remove.removals.gradual import Gradual
from compress.remove.removals.gradual_soft import GradualSoft
from compress.remove.removals.greg import GReg
from compress.remove.removals.hard import Hard
from compress.remove.removals.removal import Removal
from compress.remove.removals.sfp import SFP
from compress.remove.removals.soft import Soft
from compress.remove.removals.srfp import SRFP

REMOVALS: Final[tuple[type[Removal], ...]] = (Hard, Soft, Gradual, GradualSoft, SFP, SRFP, GReg)

BY_WORD: Final = {word: member for member in REMOVALS for word in member.words}


def is_length(member: type[Removal], name: str) -> bool:
    """Whether an option is in optimizer steps, and in recipes a duration such as "3 epochs"."""
    return name in (options := options_of(member)) and options[name][0].duration


def removal_of(wanted: object) -> Removal:
    """A removal as it is; the word "hard", which needs no options, means `Hard()`.

    Raises:
        InputError: it is neither.
    """
    if isinstance(wanted, Removal) and type(wanted) is not Removal:
        return wanted
    if isinstance(wanted, type) and issubclass(wanted, Removal):
        raise InputError(f"removal: found the class {wanted.__name__}; give an object of it, {wanted.__name__}(...)")
    if isinstance(wanted, str):
        require_word("removal", wanted, BY_WORD)
        if wanted == "hard":
            return Hard()
        name = BY_WORD[wanted].__name__
        raise InputError(f"removal: found {wanted!r}, which takes some time; say how long: compress.{name}(steps=...)")
    raise InputError(f"removal: found {wanted!r}; expected a removal such as compress.Soft(steps=1000)")


__all__ = [
    "BY_WORD",
    "REMOVALS",
    "SFP",
    "SRFP",
    "GReg",
    "Gradual",
    "GradualSoft",
    "Hard",
    "Removal",
    "Soft",
    "is_length",
    "removal_of",
]
