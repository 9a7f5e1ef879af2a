import pytest

from compress.report.measures import SAME, faster, fewer, measures, percent, points, smaller


def ascii_of(text: str | None) -> str:
    return str(text).replace("\N{MULTIPLICATION SIGN}", "x").replace("\N{MINUS SIGN}", "-")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (fewer(100, 50), "2.00x fewer"),
        (fewer(1, 250), "250.0x more"),
        (fewer(1000, 999), "as many"),
        (smaller(10, 20), "2.00x larger"),
        (smaller(100, 0), "-"),
        (faster(1.0, 0.98), "as fast"),
        (faster(1.0, 0.5), "2.00x faster"),
        (faster(1.0, 1.5), "1.50x slower"),
        (percent(2.0, 1.0), "-50.0 %"),
        (percent(1.0, 25.0), "+2,400.0 %"),
        (percent(1.0, 1.0004), "unchanged"),
        (percent(0.0, 1.0), "was 0"),
        (points(0.98, 0.9712), "-0.88 points"),
        (points(0.98, 0.98), "unchanged"),
    ],
)
def test_words(found: str, text: str) -> None:
    assert ascii_of(found) == text


def test_what_only_one_model_has_is_no_comparison() -> None:
    sizes = {"params": 10, "nonzero": 10, "macs": 0, "metric": {}, "bytes": {}}
    masked = {**sizes, "metric": {"f1": 0.5}, "latency_ms": {"1": {"p50": 2.0}}}
    found = list(measures({"dense": sizes, "masked": masked, "slim": {**sizes, "params": 5, "bytes": {"onnx": 1}}}))
    assert [(line.label, line.cells, ascii_of(line.change)) for line in found] == [
        ("parameters", ("10", "10", "5"), "2.00x fewer"),
        ("of them nonzero", ("10", "10", "10"), "as many"),
        ("MACs", ("0", "0", "0"), "as many"),
        ("test f1", ("-", "0.5", "-"), "None"),
        ("onnx, KB", ("-", "-", "0.0"), "None"),
        ("latency p50, batch 1, ms", ("-", "2.000", "-"), "None"),
    ]
    assert fewer(3, 3) in SAME
