"""The site's navigation, and that nothing of it comes from elsewhere; `make docs` builds it, and checks every link."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
OUTSIDE = {"README.md", "CHANGELOG.md", "SECURITY.md", "recipes/README.md"}
"""Pages that docs/hooks.py brings in, since others link to them."""


def config() -> Any:
    return YAML().load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from leaves(inner)


def test_the_navigation_names_every_page_once() -> None:
    named = list(leaves(config()["nav"]))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert len(pages) > 10
    assert sorted(named) == sorted(pages | OUTSIDE)
    assert all((ROOT / page).is_file() for page in OUTSIDE)


def test_pages_from_outside_are_linked_to() -> None:
    """Else the hook, which follows links, would not find them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {page for page in OUTSIDE if f"]({page})" in readme} == OUTSIDE - {"README.md"}


def test_nothing_is_loaded_from_elsewhere() -> None:
    found = config()
    assert found["theme"]["font"] is False
    assert "offline" in found["plugins"]
    (shim,) = found["extra"]["polyfills"]  # the plugin names one on a CDN where there is none of this name
    assert "iframe-worker" in shim
    own = [*found["extra_css"], shim]
    for file in own:
        assert not re.search(r"(?:url\(|src=|import )['\"]?https?:", (ROOT / "docs" / file).read_text(encoding="utf-8"))
