"""How counts are said."""

from __future__ import annotations

import pytest

from fcdeploy.wording import say_count


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 golden samples"), (1, "1 golden sample"), (2, "2 golden samples"), (1024, "1,024 golden samples")],
)
def test_a_count_agrees_with_its_noun(number: int, said: str) -> None:
    assert say_count(number, "golden sample") == said


def test_nouns_that_take_no_s() -> None:
    assert [say_count(number, "axis", "axes") for number in (1, 3)] == ["1 axis", "3 axes"]
