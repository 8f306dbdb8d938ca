"""How counts are said."""

from __future__ import annotations

import pytest

from fcdeploy.wording import say_count, shorten_name


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 golden samples"), (1, "1 golden sample"), (2, "2 golden samples"), (1024, "1,024 golden samples")],
)
def test_a_count_agrees_with_its_noun(number: int, said: str) -> None:
    assert say_count(number, "golden sample") == said


def test_nouns_that_take_no_s() -> None:
    assert [say_count(number, "axis", "axes") for number in (1, 3)] == ["1 axis", "3 axes"]


def test_a_long_name_keeps_its_ends() -> None:
    name = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/ApplyActivation_1/Mul_5:0.halved"
    short = shorten_name(name)
    assert len(short) == 48
    start, end = short.split("…")
    assert name.startswith(start)
    assert name.endswith(end)
    assert len(end) > len(start)
    assert shorten_name(name[:48]) == name[:48]
