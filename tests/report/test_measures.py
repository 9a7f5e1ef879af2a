from typing import Any

import pytest

from compress.ranking import ACCURACY, KINDS, LOSS, kind_of
from compress.report.measures import changed, error_of, faster, fewer, measures, smaller


def ascii_of(text: object) -> str:
    return str(text).replace("\N{MULTIPLICATION SIGN}", "x").replace("\N{MINUS SIGN}", "-").replace(" ± ", " +- ")


def between(low: float, high: float) -> Any:
    return {"low": low, "high": high, "method": "paired_bootstrap"}


@pytest.mark.parametrize(
    ("found", "text", "verdict"),
    [
        (fewer(100, 50), "2.00x fewer", "better"),
        (fewer(1, 250), "250x more", "worse"),
        (fewer(1000, 999), "0.1 % fewer", "better"),  # never 1.00x
        (fewer(1_182_544, 1_177_440), "0.43 % fewer", "better"),
        (fewer(1000, 1000), "as many", "same"),
        (smaller(10, 20), "2.00x larger", "worse"),
        (smaller(100, 0), "-", "same"),
        (smaller(4_738, 1_187), "3.99x smaller", "better"),
        (faster(1.0, 0.98), "as fast", "same"),
        (faster(1.0, 0.95), "5 % faster", "better"),
        (faster(1.0, 0.5), "2.0x faster", "better"),
        (faster(1.0, 1.5), "1.5x slower", "worse"),
        (faster(1.0, 0.02), "50x faster", "better"),
        (changed(LOSS, 2.0, 1.0), "-50.0 %", "better"),
        (changed(LOSS, 1.0, 25.0), "+2,400 %", "worse"),
        (changed(LOSS, 1.0, 1.0), "unchanged", "same"),
        (changed(LOSS, 0.0, 1.0), "was 0", "worse"),
        (changed(ACCURACY, 0.98, 0.9712), "-0.88 points", "worse"),
        (changed(ACCURACY, 0.98, 0.98), "unchanged", "same"),
        (changed(KINDS["psnr"], 24.0, 25.5), "+1.50 dB", "better"),
        (changed(kind_of("reward", "larger"), -50.0, -60.0), "-20.0 %", "worse"),
        # With an error, the digits are those that mean something, and only what it leaves is a gain or a loss.
        (changed(ACCURACY, 0.98, 0.9712, between(-0.0113, -0.0063)), "-0.9 +- 0.3 points", "worse"),
        (changed(ACCURACY, 0.98, 0.979, between(-0.003, 0.001)), "-0.1 +- 0.2 points", "same"),
        (changed(ACCURACY, 0.98, 0.98, between(-0.002, 0.002)), "0.0 +- 0.2 points", "same"),
        (changed(LOSS, 0.004, 0.005, between(0.00099, 0.00101)), "+25.0 +- 0.3 %", "worse"),
        (changed(LOSS, 0.004, 0.003, between(-0.0011, -0.0009)), "-25 +- 3 %", "better"),
        (changed(KINDS["psnr"], 24.0, 23.5, between(-0.62, -0.38)), "-0.50 +- 0.12 dB", "worse"),
    ],
)
def test_words(found: Any, text: str, verdict: str) -> None:
    assert (ascii_of(found), found.verdict) == (text, verdict)


def test_the_error_is_the_larger_side_of_an_interval() -> None:
    assert error_of(1.0, between(0.8, 1.0)) == pytest.approx(0.2)
    assert error_of(0.9, None) is None


def test_what_only_one_model_has_is_no_comparison() -> None:
    sizes = {"params": 10, "nonzero": 10, "macs": 0, "metric": {}, "bytes": {}}
    masked = {**sizes, "metric": {"f1": 0.5}, "latency_ms": {"1": {"p50": 2.0}}}
    found = list(measures({"dense": sizes, "masked": masked, "slim": {**sizes, "params": 5, "bytes": {"onnx": 1}}}))
    assert [(line.label, line.cells, ascii_of(line.change)) for line in found] == [
        ("parameters", ("10", "10", "5"), "2.00x fewer"),
        ("of them nonzero", ("10", "10", "10"), "as many"),
        ("MACs", ("0", "0", "0"), "as many"),
        ("test f1", ("-", "50.00 %", "-"), "None"),
        ("onnx, KB", ("-", "-", "0.0"), "None"),
        ("latency p50, batch 1, ms", ("-", "2", "-"), "None"),
    ]
