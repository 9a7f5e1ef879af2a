import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import Result

import compress
from compress import ranking
from compress.errors import InputError
from compress.recipe.loading import load_recipe
from compress.report import page as report
from compress.report.headline import deck, slim_words
from compress.report.page import headline, page
from compress.results import CONTRACT, contract_text
from compress.run.contract import contract_of

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"

# HTML's elements without an end tag, and SVG's, which ElementTree closes by itself.
VOID = {"meta", "link", "img", "wbr", "line", "rect", "path", "circle"}


class Reader(HTMLParser):
    """What a browser would make of the page: elements, text, ids; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[int] = []
        self.code: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({key for key, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)
        if self.open[-2:] == ["pre", "code"]:
            self.code.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-2:] == ["pre", "code"]:
            self.code[-1] += data

    def all(self, key: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(key)) is not None]


@pytest.fixture(params=["reconstruct", "classify"])
def either(request: pytest.FixtureRequest, changed: dict[str, Any], classes: dict[str, Any]) -> dict[str, Any]:
    return changed if request.param == "reconstruct" else classes


def test_every_section_is_there(changed: dict[str, Any], classes: dict[str, Any]) -> None:
    common = {"choices", "figures", "stages", "scores", "layers", "latency", "proofs", "reload", "recipe", "origin"}
    assert common | {"images", "main"} <= set(Reader(page(changed)).all("id"))
    assert common | {"confusion", "main"} <= set(Reader(page(classes)).all("id"))


def test_the_page_is_whole_and_can_be_read_aloud(either: dict[str, Any]) -> None:
    read = Reader(page(either))
    ids = read.all("id")
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in read.all("href") if link.startswith("#")} <= set(ids)
    assert set(" ".join([*read.all("aria-labelledby"), *read.all("aria-describedby")]).split()) <= set(ids)
    assert read.headings[0] == 1
    assert read.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(read.headings, read.headings[1:], strict=False))
    landmarks = [tag for tag, _ in read.tags if tag in ("header", "nav", "main", "footer")]
    assert landmarks == ["header", "nav", "main", "footer"]
    pictures = [attributes for tag, attributes in read.tags if tag == "svg"]
    assert len(pictures) >= 4
    assert all(picture["role"] == "img" and picture["aria-labelledby"] for picture in pictures)
    assert all(attributes["alt"] for tag, attributes in read.tags if tag == "img")


def test_nothing_is_fetched_and_nothing_runs(either: dict[str, Any]) -> None:
    read = Reader(page(either))
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base"}
    assert all(link.startswith(("#", "data:,")) for link in read.all("href"))
    assert all(source.startswith("data:image/png;base64,") for source in read.all("src"))
    assert "url(" not in page(either)
    assert "@import" not in page(either)
    (policy,) = [attributes["content"] for _, attributes in read.tags if "http-equiv" in attributes]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def strings(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the document has text of its own."""
    if isinstance(value, str):
        yield way
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from strings(inner, (*way, key))


def value_at(document: Any, way: tuple[str | int, ...]) -> Any:
    for key in way:
        document = document[key]
    return document


def test_no_text_of_the_results_becomes_markup(either: dict[str, Any]) -> None:
    """Every text, one after the other, that does not decide what is drawn."""
    plain = Reader(page(either))
    shown = 0
    for way in strings(either):
        decides = ("scale", "measure", "kind", "choice", "runtime", "better")
        # Without its comma, a target would be a layer, which has a tile of its own.
        if (
            way[-1] in decides
            or (way[-1] == "target" and "," in str(value_at(either, way)))
            or way[:2] in (("recipe", "export"), ("ranked_by", "name"))
        ):
            continue
        evil = copy.deepcopy(either)
        inner = evil
        for key in way[:-1]:
            inner = inner[key]  # type: ignore[index]
        inner[way[-1]] = EVIL  # type: ignore[index]
        read = Reader(page(evil))
        # Messages with backticks have code, which the evil text lacks.
        tags = [tag for tag, _ in read.tags if tag not in ("wbr", "code")]
        assert tags == [tag for tag, _ in plain.tags if tag not in ("wbr", "code")], way
        assert not [attributes for _, attributes in read.tags if any(key.startswith("on") for key in attributes)]
        shown += "alert(1)" in page(evil)
    assert shown > 20


def test_names_that_are_keys_do_not_become_markup_either(classes: dict[str, Any]) -> None:
    for model in classes["models"].values():
        model["metric"][EVIL] = 1.0
        model["bytes"] |= {f"{EVIL}": 1}
        model["latency_ms"] |= {"7": model["latency_ms"].pop("1")}
    classes["versions"][EVIL] = EVIL
    read = Reader(page(classes))
    assert "img" not in {tag for tag, _ in read.tags}
    assert "script" not in {tag for tag, _ in read.tags}


NEW = {"stages": ("curve", "scores"), "data": ("shape",), "latency": ("quantiles",)}


def test_older_results_have_a_page_too(either: dict[str, Any]) -> None:
    for key in ("tensors", "images", "confusion", "choices", "best", "load", "constant"):
        either.pop(key, None)
    for stage in either["stages"]:
        for key in NEW["stages"]:
            stage.pop(key, None)
    del either["data"]["shape"]
    for model in either["models"].values():
        del model["error"]
        model.pop("change", None)
        for figures in model["latency_ms"].values():
            del figures["quantiles"]
    read = Reader(page(either))
    assert not set(read.all("id")) & {"scores", "layers", "images", "confusion", "latency"}
    assert {"choices", "figures", "stages", "proofs", "recipe"} <= set(read.all("id"))
    assert {"best", "facts"}.isdisjoint(read.all("class"))
    assert "svg" not in {tag for tag, _ in read.tags}


def test_what_was_not_measured_is_absent(changed: dict[str, Any]) -> None:
    for model in changed["models"].values():
        del model["latency_ms"]
        model["bytes"] = {}
    for choice in changed["choices"].values():
        choice.pop("latency_ms")
        choice.pop("peak_memory", None)
    changed["best"]["bound"] = "smallest within 0.5 % of dense's loss"
    changed["recipe"]["export"] = []
    del changed["parity"]["slim_vs_onnx"], changed["parity"]["slim_vs_pt2"]
    read = Reader(page(changed))
    assert not set(read.all("id")) & {"latency", "reload"}
    assert "slim.onnx" not in read.text
    assert "latency p50" not in read.text
    assert "onnxruntime" not in re.sub(r"versions.*", "", read.text.split("The same outputs")[1], flags=re.DOTALL)


def test_the_figures_are_those_of_the_results(changed: dict[str, Any]) -> None:
    text = Reader(page(changed)).text
    for model in changed["models"].values():
        assert f"{model['params']:,}" in text
        value, interval = model["metric"]["loss"], model["error"]["loss"]
        error = max(interval["high"] - value, value - interval["low"])
        assert ranking.LOSS.text(value, error) in text
        assert f"{model['latency_ms']['4']['p50']:.3g}" in text
    assert changed["data"]["sha256"] in text
    assert changed["data"]["note"] in text
    assert f"{changed['parity']['slim_vs_onnx']:.1e}" in text
    changed["warnings"] = ["a layer would keep 1 of its 9 weights"]
    assert "Before you read on" in Reader(page(changed)).text
    assert changed["warnings"][0] in Reader(page(changed)).text


def test_the_same_results_give_the_same_page(either: dict[str, Any]) -> None:
    assert page(either) == page(json.loads(json.dumps(either)))


def test_the_recipe_on_the_page_is_the_one_that_was_run(either: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(Reader(page(either)).code[-1], encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").model_dump(mode="json") == either["recipe"]


@pytest.mark.parametrize("which", ["applied", "classified"])
def test_the_snippets_run_where_the_files_are(
    which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pictures: Any
) -> None:
    """And the card has the same."""
    folder = request.getfixturevalue(which)
    for path in folder.glob("slim.*"):
        (tmp_path / path.name).symlink_to(path)
    Image.fromarray(pictures()["images"][7]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    contract, *snippets, _ = Reader((folder / "report.html").read_text(encoding="utf-8")).code
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"```json\n{contract}\n```" in card
    assert len(snippets) == 3
    assert all(f"```python\n{code}```" in card for code in snippets)
    found: list[dict[str, Any]] = [{}, {}, {}]
    for code, names in zip(snippets, found, strict=True):
        exec(compile(code, "report.html", "exec"), names)
    onnx, pt2, safetensors = found
    batch = onnx["inputs"]["input"]
    assert batch.shape == (1, 1, 6, 6)
    assert abs(onnx["output"] - pt2["output"].detach().numpy()).max() <= 1e-5
    again = safetensors["network"](pt2["torch"].from_numpy(batch))
    assert abs(onnx["output"] - again.detach().numpy()).max() <= 1e-5


def test_the_snippets_are_right_for_several_inputs(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")

    class Two(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, left: Any, right: Any) -> Any:
            return {"sum": left + right, "difference": left - right}

    monkeypatch.chdir(tmp_path)
    example = {"left": torch.randn(2, 6), "right": torch.randn(2, 6)}
    contract = contract_of(Two(), example, None, preparation=None, classes=None, opset=20)
    compress.export.onnx(Two(), "slim.onnx", example, metadata={CONTRACT: contract_text(contract)})
    changed["contract"] = contract
    code = next(text for text in Reader(page(changed)).code if "import onnxruntime" in text)
    names: dict[str, Any] = {}
    exec(compile(code, "report.html", "exec"), names)
    assert [one.shape for one in (names["output"], *names["others"])] == [(1, 6), (1, 6)]


def test_a_factory_is_imported_and_what_is_no_name_is_not(changed: dict[str, Any]) -> None:
    changed["recipe"]["model"] = {"factory": "my_module.nets:build", "args": {"width": 3}}
    code = "\n".join(Reader(page(changed)).code)
    assert "from my_module.nets import build" in code
    assert "return build(**{'width': 3})" in code
    for model in ({"factory": "os:system('x') #"}, {"name": "a(); import os"}, {"name": "autoencoder", "x; y": 1}):
        changed["recipe"]["model"] = model
        code = "".join(Reader(page(changed)).code[:-1])
        assert "system" not in code
        assert "import os" not in code
        assert "x; y" not in code
        assert "# the function that makes your network" in code


# --- the first sentence ---


def models(*, size: float = 1.0, zipped: float = 1.0, ratio: float = 1.0, **metric: tuple[float, float]) -> Any:
    def figures(at: int, factor: float, gzip: float) -> dict[str, Any]:
        return {
            "params": 1000,
            "bytes": {"onnx": 1000 / factor, "onnx_gzip": 900 / gzip},
            "latency_ms": {"1": {"ratio": ratio if at else 1.0}},
            "metric": {name: values[at] for name, values in metric.items()},
        }

    return {"dense": figures(0, 1.0, 1.0), "slim": figures(1, size, zipped)}


def plain(text: str) -> str:
    """With signs that a keyboard has."""
    return text.replace("\N{MULTIPLICATION SIGN}", "x").replace("\N{MINUS SIGN}", "-")


def stage(kind: str, target: str, achieved: float, of: int, measure: str = "sparsity") -> dict[str, Any]:
    gone = round(achieved * of)
    return {"kind": kind, "target": target, "measure": measure, "achieved": achieved, "pruned": gone, "of": of}


LOSS = {"loss": (0.010, 0.012)}


@pytest.mark.parametrize(
    ("stages", "found", "text"),
    [
        (
            [stage("nodes", "latent", 0.75, 64)],
            models(size=1.9, zipped=1.9, ratio=1 / 1.4, **LOSS),
            "64 → 16 latent nodes: 1.90x smaller, 1.4x faster, test loss +20.0 %",
        ),
        (
            [stage("nodes", "latent", 0.75, 64)],
            models(size=1.01, zipped=1.01, **LOSS),
            "64 → 16 latent nodes: 0.99 % smaller, as fast as before, test loss +20.0 %",
        ),
        (
            [stage("weights", "dense.*", 0.97, 1000)],
            models(zipped=20.0, ratio=1.2, loss=(1.0, 2.0), accuracy=(0.98, 0.9694)),
            (
                "97 % of the weights of dense.* pruned: the same size, 20.0x smaller when compressed, 1.2x slower, "
                "test accuracy -1.06 points"
            ),
        ),
        (
            [stage("nodes", "*", 0.498, 688, "macs")],
            models(size=0.5, zipped=0.5, loss=(1.0, 1.0)),
            "49.8 % of the multiply-adds left: 2.00x larger, as fast as before, test loss unchanged",
        ),
        (
            [stage("nodes", "a, b", 0.5, 10), stage("weights", "c.*", 0.5, 10)],
            models(size=3.0, zipped=3.0, accuracy=(0.5, 0.6), loss=(1.0, 0.9)),
            (
                "5 of 10 nodes of a, b pruned, then 50 % of the weights of c.* pruned: 3.00x smaller, "
                "as fast as before, test accuracy +10.00 points"
            ),
        ),
        (
            [stage("nodes", "a", 0.5, 10)] * 3,
            models(size=3.0, zipped=3.0, loss=(2.0, 1.0)),
            (
                "3 stages, at last 10 → 5 a nodes, then 10 → 5 a nodes: 3.00x smaller, as fast as before, "
                "test loss -50.0 %"
            ),
        ),
    ],
)
def test_the_headline_is_honest(stages: list[Any], found: Any, text: str) -> None:
    assert plain(headline({"stages": stages, "models": found})) == text


def test_the_headline_says_where_it_is_faster() -> None:
    found = models(**LOSS)
    found["slim"]["latency_ms"] = {"1": {"ratio": 1.0}, "32": {"ratio": 0.5}}
    text = plain(headline({"stages": [stage("nodes", "latent", 0.5, 8)], "models": found}))
    assert "as fast as before at batch 1," in text
    found["slim"]["latency_ms"]["1"]["ratio"] = 0.5
    found["slim"]["latency_ms"]["32"]["ratio"] = 0.1
    assert "2.0x faster at batch 1," in plain(headline({"stages": [stage("nodes", "latent", 0.5, 8)], "models": found}))
    for model in found.values():
        model["bytes"], model["latency_ms"] = {}, {}
    found["slim"]["params"] = 500
    text = plain(headline({"stages": [stage("nodes", "latent", 0.5, 8)], "models": found}))
    assert text == "8 → 4 latent nodes: 2.00x fewer parameters, test loss +20.0 %"


def test_where_only_dense_is_within_the_bound_the_headline_tells_gain_and_price(
    every_choice: dict[str, Any],
) -> None:
    results: Any = every_choice
    results["best"] = {"bound": "fastest at batch 1 within 0.5 % of dense's loss", "choice": "dense"}
    assert "fastest" not in headline(results)
    assert slim_words(results) in headline(results)
    assert deck(results).endswith(" The fastest at batch 1 within 0.5 % of dense's loss is the dense network itself.")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("run `compress bench` again", "run <code>compress bench</code> again"),
        ("`a<b`, `c`", "<code>a&lt;b</code>, <code>c</code>"),
        ("<b> and a single ` of a name", "&lt;b&gt; and a single ` of a name"),
        ("", ""),
    ],
)
def test_what_stands_in_backticks_is_code(text: str, html: str) -> None:
    assert str(report.with_code(text)) == html


# --- the command ---

Run = Callable[..., Result]


def test_the_command_makes_the_same_page_anywhere(run: Run, applied: Path, tmp_path: Path) -> None:
    here = tmp_path / "results.json"
    here.write_bytes((applied / "results.json").read_bytes())
    for argument in (here, tmp_path):
        assert run("report", argument).stdout == f"{tmp_path / 'report.html'}\n"
        assert (tmp_path / "report.html").read_bytes() == (applied / "report.html").read_bytes()
    out = tmp_path / "page.html"
    found = json.loads(run("report", here, "-o", out, "--json").stdout)
    assert found == {"report": str(out), "bytes": out.stat().st_size}
    assert "exists; name another file, or replace it with --force" in run("report", here, "-o", out, code=2).stderr
    run("report", here, "-o", out, "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "report.html", "results.json"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "cannot be read as JSON"),
        ('{"a": NaN}', "NaN is not a number"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": 1e999}', "1e999 is too large for a number"),
        ("9" * 5000, "cannot be read as JSON"),
        ("[]", "is not a results.json of `compress apply` \\(schema 1\\)"),
        ('{"schema": 2, "models": {}}', "is not a results.json"),
        ('{"schema": 1, "models": {}}', "is damaged: recipe is missing"),
    ],
)
def test_what_is_no_result_is_told_in_a_line(run: Run, tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "results.json").write_text(content, encoding="utf-8")
    result = run("report", tmp_path, code=2)
    assert re.search(text, result.stderr)
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_without_results(run: Run, tmp_path: Path) -> None:
    assert "results.json does not exist; name the output folder" in run("report", tmp_path, code=2).stderr


def ways(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if way:
        yield way
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else list(enumerate(value))[:2]:
            yield from ways(inner, (*way, key))


WRONG = (None, "text", "\ud800", -1, 10**400, [], {}, [["x"]])


def damage(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every value replaced by one of the wrong ones, each time another."""
    for number, way in enumerate(ways(results)):
        damaged = copy.deepcopy(results)
        inner = damaged
        for key in way[:-1]:
            inner = inner[key]  # type: ignore[index]
        inner[way[-1]] = WRONG[number % len(WRONG)]  # type: ignore[index]
        yield damaged


@pytest.mark.extended
def test_a_damaged_value_is_shown_or_told_and_never_a_traceback(classes: dict[str, Any]) -> None:
    told = []
    for damaged in damage(classes):
        try:
            report.render(damaged, Path("results.json"))
        except InputError as error:
            told.append(str(error))
    assert len(told) > 50
    assert all(text.startswith("results.json is damaged: ") for text in told)


def test_the_page_is_made_without_torch_onnx_and_matplotlib(applied: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from compress.cli import main; sys.argv[1:] = ['report', sys.argv[1], '-o', 'page.html']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'numpy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(applied)], cwd=tmp_path, check=True)
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert compress.__version__ in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_shape_from_scratch_is_beside_the_figures(changed: dict[str, Any]) -> None:
    assert "without pruning, trained from random weights" not in page(changed)
    run = {"epochs": 17, "steps": 170, "seconds": 9.0, "metric": {"loss": 1.25}, "better": "scratch"}
    changed["rivals"] = {"scratch": {"total": run}}
    changed["warnings"] = ["the slim network's shape is better trained from scratch"]
    shown = page(changed)
    line = "from scratch, 17 epochs, as many as the dense training and the retraining: loss 1.25; better than"
    assert shown.index("better trained from scratch") < shown.index('id="choices"') < shown.index(line)
