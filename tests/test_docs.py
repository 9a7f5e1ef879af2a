"""What the documents promise: code that runs, commands that exist, links that lead somewhere."""

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.main
from blocks import FENCED, FOLLOWED, blocks, commands
from typer.testing import Result

from compress.cli import app
from compress.recipe.loading import load_recipe
from compress.recipe.shipped import shipped
from compress.remove.decay import CURVES

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for pattern in ("*.md", "docs/*.md", "recipes/*.md") for page in ROOT.glob(pattern))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def command_lines() -> Iterator[tuple[str, str]]:
    """(file, line) of every command that the pages and the recipes' comments show."""
    for page in PAGES:
        for line in commands(page):
            yield page.name, line
    for recipe in RECIPES:
        for line in re.findall(r"^#   (\S.*)$", recipe.read_text(encoding="utf-8"), re.MULTILINE):
            yield recipe.name, line


COMPRESS = [
    (file, line.partition(" ")[2] if line.startswith("RAY_ADDRESS=") else line)
    for file, line in command_lines()
    if re.match(r"(RAY_ADDRESS=\S+ )?(compress|softprune)\s", line)
]


@pytest.mark.parametrize(("file", "line"), COMPRESS)
def test_a_command_that_is_shown_is_one_that_exists(file: str, line: str) -> None:
    """Parsed as the command line does, and with recipe and changes checked, but not run."""
    _, command, *arguments = shlex.split(re.split(r"[|>]", line)[0], comments=True)
    group = typer.main.get_group(app)
    if command.startswith("-"):
        assert command in {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
        return
    assert command in group.commands
    given = group.commands[command].make_context(command, arguments).params
    # The reader's own recipes are not files here; tests/test_bring_your_own.py runs those of the pages in FOLLOWED.
    own = file in FOLLOWED or given.get("recipe") == "mine.yaml"
    if command in ("train", "apply", "plan") and not own:
        load_recipe(ROOT / given["recipe"] if "/" in given["recipe"] else given["recipe"], given["changes"] or ())


@pytest.mark.usefixtures("sample")
def test_the_plan_that_is_shown_is_the_one_that_is_made(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an untrained network: names, counts, sizes and steps do not depend on the weights."""
    page = ROOT / "docs" / "plan.md"
    (recipe,), (shown, _) = ([block.text for block in blocks(page, language)] for language in ("yaml", "text"))
    (tmp_path / "mine.yaml").write_text(recipe, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    result = run("plan", "mine.yaml")
    fixed = re.compile(r"^│ (?!of them nonzero|estimated time)|^warning: |^note: |^stage |^keeps")
    lines = [line for line in shown.splitlines() if fixed.match(line) and "zeros in place" not in line]
    made = [*result.stderr.splitlines(), *result.stdout.splitlines()]
    assert len(lines) > 15
    assert [line for line in lines if line not in made] == []


@pytest.mark.extended
def test_the_page_about_the_terminal_runs(
    run: Callable[..., Result], recipe_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a small recipe: in its folder, a file is taken before a shipped recipe of that name."""
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist_ae").write_text(recipe_text, encoding="utf-8")
    page = ROOT / "docs" / "terminal.md"
    lines = [line for line in commands(page) if "-completion" not in line]
    assert len(lines) == 5
    for line in lines:
        program, *arguments = shlex.split(line.partition(">")[0])
        assert program == "compress"
        told = run(*arguments)
        if "--quiet" in arguments:
            assert [line for line in told.stderr.splitlines() if not line.startswith("warning: ")] == []
            assert "stages" in json.loads(told.stdout)
    for place in ("runs/csv/tiny-train/events.csv", "runs/tensorboard/tiny", "curves/events.csv"):
        assert (tmp_path / place).exists()
    (code,) = blocks(page, "python")
    exec(compile(code.text, "terminal.md", "exec"), {})


def test_every_command_is_shown_somewhere() -> None:
    shown = {line.split()[1] for _, line in COMPRESS}
    assert shown >= set(typer.main.get_group(app).commands) - {"demo"}


def test_what_make_is_asked_for_is_in_the_makefile() -> None:
    wanted = {line.split()[1] for _, line in command_lines() if line.startswith("make ")}
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test"} <= wanted <= set(targets)


def test_the_scripts_that_are_shown_exist() -> None:
    scripts = {line.split()[1] for _, line in command_lines() if line.startswith("python ")}
    files = [script for name in ("benchmarks", "examples") for script in (ROOT / name).glob("*.py")]
    stems = "|".join(script.stem for script in files)
    imported = re.compile(rf"^(?:from|import) ({stems})\b|'(\w+):\w+'", re.MULTILINE)
    texts = [script.read_text(encoding="utf-8") for script in files]
    parts = {name for text in texts for found in imported.findall(text) for name in found}
    kept = {str(script.relative_to(ROOT)) for script in files if script.stem not in parts}
    assert {script for script in scripts if "/" in script} >= kept
    assert [script for script in scripts if "/" in script and not (ROOT / script).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        path, _, heading = link.partition("#")
        goal = page.parent / path if path else page
        assert goal.exists(), f"{page.name}: {link}"
        if heading:
            assert heading in headings(goal), f"{page.name}: {link}"


def headings(page: Path) -> set[str]:
    """The headings of a page as anchors."""
    found = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in found}


def test_every_test_that_is_named_is_there() -> None:
    """`...::name` is of the file that was named before it."""
    count = 0
    for page in PAGES:
        file = ""
        for named, name in re.findall(r"`(tests/[\w/]+\.py|\.\.\.)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
            file = file if named == "..." else named
            assert (ROOT / file).is_file(), f"{page.name}: {file}"
            assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), f"{page.name}: {file}::{name}"
            count += 1
    assert count > 20


def test_the_page_of_the_report_lists_what_a_run_leaves(applied: Path) -> None:
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8").partition("## The files beside it")[2]
    listed = re.findall(r"^\| `([\w./]+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(applied)) for path in applied.rglob("*") if path.is_file())


def test_the_readme_counts_the_recipes() -> None:
    assert len(shipped()) == 22
    assert "Twenty-two are included" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_figures_are_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as for a script that is run
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert len(tables.FILES) == 6 + len(RECIPES)
    for path in tables.FILES:
        text = path.read_text(encoding="utf-8")
        assert text.count("<!-- table: ") == text.count("<!-- /table -->")
        assert "<!-- table: " in text or "# Expected (measured" in text
        assert tables.filled(path) == text, "regenerate the figures: python benchmarks/tables.py"


def test_the_readme_s_picture_shows_the_figures_that_are_told_of_it() -> None:
    (told,) = re.findall(
        r"^!\[(.*)\]\(docs/images/result.svg\)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    figures = re.findall(r"[\d,]*\d\.\d+|[\d,]+(?= KB| to [\d,]+ )", told)
    assert len(figures) >= 18
    drawn = (ROOT / "docs" / "images" / "result.svg").read_text("utf-8")
    assert [figure for figure in figures if not re.search(rf"<!-- .*\b{figure} -->", drawn)] == [], "docs/picture.py"


def test_the_zoo_s_page_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page = importlib.import_module("zoo_page")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (page.TORCHVISION, page.BEYOND)]
    assert len(found[0]) > 80
    assert len(found[1]) > 60
    assert page.page(*found) == (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("curve", ["exponential", "linear", "cosine"])
def test_the_curves_in_the_picture_are_those_of_the_code(curve: str) -> None:
    (line,) = ET.parse(ROOT / "docs" / "images" / "pipeline.svg").iterfind(f".//*[@id='{curve}']")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    (left, top), (right, bottom) = points[0], points[-1]
    for x, y in points:
        assert (bottom - y) / (bottom - top) == pytest.approx(CURVES[curve]((x - left) / (right - left)), abs=1e-3)


def test_no_file_names_a_place_on_this_machine_or_a_registry() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("this is no git checkout, so what belongs to it is unknown")
    files = [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert len(files) > 50
    private = re.compile(r"(?<![\w.])/(root|home|work|tmp|Users|mnt)/\w|\b(pypi|pythonhosted|npmjs)\.org|index[-]url")
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in files
        for match in private.finditer(file.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not found


def test_the_limits_are_told_as_they_are() -> None:
    from compress.files.foreign import ROOM, SECONDS, SPEED, TIMES

    told = (
        f"at most {ROOM // 2**30} GiB plus {TIMES} times (its size|the size of the file)( in memory)?, "
        f"and {SECONDS:.0f} seconds plus one for every {SPEED // 10**6} MB"
    )
    for page in ("SECURITY.md", "docs/security.md", "docs/reliability.md", "CHANGELOG.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert re.search(told, text), page
