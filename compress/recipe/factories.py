"""The code that a recipe runs: reported before any of it runs, since importing a module runs it."""

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec

from compress.recipe.schema import FactoryData, FactoryModel, OwnTask, Program, Recipe


def factories(recipe: Recipe) -> Iterator[str]:
    """A line for each factory of the recipe: "the recipe imports my_net from /here/my_net.py, to call my_net:build"."""
    for spec in called(recipe):
        module = spec.partition(":")[0]
        yield f"the recipe imports {module} from {_place(module)}, to call {spec}"
    if isinstance(recipe.model, Program):
        yield "the recipe's model is a program: loading its .pt2 may run code from that file"


def called(recipe: Recipe) -> Iterator[str]:
    """Every function that the recipe names, as "my_net:build"."""
    for part in (recipe.model, recipe.data):
        if isinstance(part, FactoryModel | FactoryData):
            yield part.factory
    if isinstance(recipe.task, OwnTask):
        yield from (recipe.task.loss, *recipe.task.metrics.values())


def _place(module: str) -> str:
    """The file or folder of the outermost package, found as `models.call_factory` finds it, without importing it."""
    outermost, here = module.partition(".")[0], os.getcwd()
    if outermost in sys.builtin_module_names:
        return "Python itself"
    if outermost in sys.modules:
        return getattr(sys.modules[outermost], "__file__", None) or "this program"
    found = PathFinder.find_spec(outermost, sys.path if here in sys.path else [here, *sys.path])
    found = found or find_spec(outermost)
    if found is None:
        return "nowhere (the module was not found)"
    return (found.has_location and found.origin) or ", ".join(found.submodule_search_locations or ["Python itself"])
