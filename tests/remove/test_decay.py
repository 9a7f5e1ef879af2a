import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.remove import decay


@pytest.mark.parametrize("name", decay.CURVES)
def test_curves_run_from_one_to_zero_without_rising(name):
    values = [decay.CURVES[name](index / 1000) for index in range(1001)]
    assert values[0] == 1.0
    assert values[-1] == 0.0
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_figure_one_has_six_curves():
    assert set(decay.CURVES) == {"exponential", "linear", "cosine", "polynomial", "sigmoid", "step"}


@given(progress=st.floats(0, 1, exclude_max=True))
def test_formulas(progress):
    assert decay.exponential(progress) == pytest.approx(math.exp(math.log(1e-6) * progress))
    assert decay.linear(progress) == pytest.approx(1 - progress)
    assert decay.cosine(progress) == pytest.approx(math.cos(math.pi * progress / 2) ** 2)
    assert decay.polynomial(progress) == pytest.approx((1 - progress) ** 3)
    assert decay.sigmoid(progress) + decay.sigmoid(1 - progress) == pytest.approx(1)
    assert decay.step(progress) == pytest.approx(1 - int(progress * 5) / 5)


@pytest.mark.parametrize(("x", "steps"), [(0.9, 132), (0.99, 1375), (0.999, 13809)])
def test_steps_until_a_millionth(x, steps):
    assert decay.by_factor(x).steps == steps
    assert x**steps <= 1e-6 < x ** (steps - 1)


@given(x=st.floats(0.5, 0.9999), share=st.floats(0, 1, exclude_max=True))
def test_factor_is_a_power_of_x(x, share):
    curve = decay.by_factor(x)
    t = int(share * curve.steps)
    assert curve(t) == pytest.approx(x**t, rel=1e-9)


def test_gone_after_n_steps():
    curve = decay.over(10)
    assert curve(0) == 1.0
    assert curve(9) == pytest.approx(1e-6**0.9)
    assert curve(10) == curve(11) == 0.0


def test_final_is_where_an_early_stop_stands():
    assert decay.over(1000, final=0.5)(999) == pytest.approx(0.5, rel=1e-3)
    assert decay.over(1000, final=0.5)(1000) == 0.0


def test_zero_steps_is_hard():
    assert decay.over(0)(0) == 0.0


def test_own_curve():
    assert decay.over(4, lambda progress: 1 - progress**2)(2) == 0.75


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: decay.over(-1), "-1 steps"),
        (lambda: decay.over(3, "cubic"), "decay: found 'cubic'"),
        (lambda: decay.over(3, final=0.0), "final=0.0"),
        (lambda: decay.by_factor(1.0), "factor 1.0"),
        (lambda: decay.by_factor(0.0), "factor 0.0"),
    ],
)
def test_mistakes(make, says):
    with pytest.raises(InputError, match=says):
        make()
