from typing import Any

from jsonschema import Draft202012Validator

from compress.ranking import ACCURACY, LOSS
from compress.report.choices import agreements, best_of, best_sentence, choice_table, choices_of, refusals
from compress.results import Choice, ChoiceName, json_schema


def choice(size: int, p50: float | None = None, **metric: float) -> Choice:
    found: Choice = {"runtime": "onnxruntime", "bytes": size, "metric": {"loss": 1.0, **metric}}
    if p50 is not None:
        found["latency_ms"] = {"8": {"p50": p50, "p90": p50, "p99": p50, "min": p50, "runs": 9, "ratio": p50}}
    return found


def accurate(**changed: Choice) -> dict[ChoiceName, Choice]:
    return {"dense": choice(400, 1.0, accuracy=0.9), **changed}  # type: ignore[dict-item]


def test_the_fastest_within_the_bound() -> None:
    slim, int8 = choice(100, 0.2, accuracy=0.89), choice(100, 0.5, accuracy=0.895)
    assert best_of(accurate(slim=slim, dense_int8=int8), 0.5, ACCURACY) == {
        "bound": "fastest at batch 8 within 0.5 points of dense's accuracy",
        "choice": "dense_int8",
    }
    assert best_of(accurate(slim=slim, dense_int8=int8), 1, ACCURACY)["choice"] == "slim"
    assert best_of(accurate(slim=slim, dense_int8=int8), 0.4, ACCURACY)["choice"] == "dense"
    assert best_of(accurate(slim=choice(100, 1.5, accuracy=0.95)), 0.5, ACCURACY)["choice"] == "dense"


def test_of_equally_fast_ones_the_smallest() -> None:
    assert best_of(accurate(slim=choice(100, 1.02, accuracy=0.9)), 0.5, ACCURACY)["choice"] == "slim"
    assert best_of(accurate(slim=choice(100, 1.04, accuracy=0.9)), 0.5, ACCURACY)["choice"] == "dense"


def test_without_times_the_smallest_and_without_accuracy_the_loss() -> None:
    found: dict[ChoiceName, Choice] = {"dense": choice(400, loss=1.0), "slim": choice(100, loss=1.004)}
    assert best_of(found, 0.5, LOSS) == {"bound": "smallest within 0.5 % of dense's loss", "choice": "slim"}
    assert best_of(found, 0.3, LOSS)["choice"] == "dense"


def test_a_refused_file_is_never_best() -> None:
    refused: Choice = {"runtime": "onnxruntime", "refused": "it loses 3 points"}
    assert best_of(accurate(slim_int8=refused), 100, ACCURACY)["choice"] == "dense"
    assert list(refusals(accurate(slim_int8=refused))) == ["slim int8 was refused: it loses 3 points"]


def test_every_choice_has_a_row(every_choice: Any) -> None:
    Draft202012Validator(json_schema()).validate(every_choice)
    table = choice_table(every_choice)
    assert table.columns == ("KB", "ms, batch 1", "ms, batch 4", "test accuracy", "memory, MB")
    assert [row.label for row in table.rows] == [
        "dense",
        "dense int8",
        "slim",
        "slim int8",
        "dense in torch",
        "sparse in torch",
    ]
    assert [row.label for row in table.rows if row.best] == ["dense int8"]
    assert [row.label for row in table.rows if row.refused] == ["slim int8"]
    words = {row.label: [str(cell.change or "") for cell in row.cells] for row in table.rows}
    assert words["dense"] == words["dense in torch"] == [""] * 5
    assert words["sparse in torch"][1] == "4.0\N{MULTIPLICATION SIGN} faster"  # than dense in torch
    assert words["dense int8"][3] == "\N{MINUS SIGN}0.20 points"


def test_the_best_in_a_sentence(every_choice: Any) -> None:
    times = "\N{MULTIPLICATION SIGN}"
    assert best_sentence(every_choice) == (
        f"fastest at batch 1 within 0.5 points of dense's accuracy: dense int8, 4.00{times} smaller, "
        f"2.5{times} faster, test accuracy \N{MINUS SIGN}0.20 points"
    )
    every_choice["best"]["choice"] = "sparse"
    assert f"sparse in torch, 4.00{times} smaller, 2.0{times} faster than in onnxruntime" in str(
        best_sentence(every_choice)
    )
    every_choice["best"]["choice"] = "dense"
    assert str(best_sentence(every_choice)).endswith(": dense itself")


def test_int8_is_never_called_equal(every_choice: Any) -> None:
    (text,) = agreements(every_choice)
    assert text == (
        "dense int8 against its float file, test data: the same class for 99.50 %, outputs differ by 0.01 on average, "
        "0.5 at most; int8 is not proven equal"
    )


def test_results_of_an_older_version_have_dense_and_slim(changed: Any) -> None:
    new = choices_of(changed)
    del changed["choices"], changed["best"]
    old = choices_of(changed)
    assert old.keys() == {"dense", "slim"}
    for name in old:
        assert old[name]["bytes"] == new[name]["bytes"]
        assert old[name]["latency_ms"] == new[name]["latency_ms"]
    assert best_sentence(changed) is None
    for model in changed["models"].values():
        model["bytes"] = {}
    assert [column for column in choice_table(changed).columns if column == "KB"] == []
