import pytest

from compress.select.ramp import level, progress_at


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.5, 0.875), (1.0, 1.0)])
def test_the_ramp_is_zhu_and_guptas_cubic(progress, expected):
    assert level(progress) == expected


def test_the_progress_follows_from_the_level():
    for progress in (0.0, 0.1, 0.5, 0.99, 1.0):
        assert progress_at(level(progress)) == pytest.approx(progress)
    assert progress_at(1.0 + 1e-16) == progress_at(1.0) == 1.0
