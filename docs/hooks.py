"""Brings into the site what its pages link to outside docs/: the README, recipes, the changelog.

Pages are written for the repository, where `../recipes/README.md` is a neighbour of docs/. On the site every file keeps
its path in the repository, less a leading `docs/`, and links are rewritten by that one rule.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FIRST = "README.md"
"""The page that leads everywhere, and becomes the site's own first page."""

CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the linked files outside docs/ to the site, and what these link to in turn."""
    waiting = [FIRST, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            found = {target for target in targets(path) if not target.startswith("docs/")} - seen
            seen |= found
            waiting += sorted(found)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's links as they lead from its place on the site."""
    path = page.file.src_uri if page.file.generated_by else f"docs/{page.file.src_uri}"

    def moved(found: re.Match[str]) -> str:
        target = target_of(path, found[1])
        if target is None:
            return found[1]
        fragment = urlsplit(found[1]).fragment
        here = posixpath.dirname(page.file.src_uri)
        return posixpath.relpath(target.removeprefix("docs/"), here or ".") + (f"#{fragment}" if fragment else "")

    pieces = CODE.split(markdown)
    pieces[::2] = [LINK.sub(moved, piece) for piece in pieces[::2]]
    return "".join(pieces)


def targets(path: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    prose = CODE.sub("", (ROOT / path).read_text(encoding="utf-8"))
    for link in LINK.findall(prose):
        if (target := target_of(path, link)) is not None:
            yield target


def target_of(path: str, link: str) -> str | None:
    """Where a link of the page `path` leads in the repository; None for other places and for the page itself."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path:
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), parts.path))
    return target if (ROOT / target).is_file() else None
