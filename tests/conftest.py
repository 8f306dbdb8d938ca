"""What several test files share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fcdeploy.errors import FcdeployError


@contextmanager
def fails(message: str, hint: str = "") -> Iterator[None]:
    """The block raises an FcdeployError with this in its message, one line long, and this in its hint."""
    with pytest.raises(FcdeployError, match=re.escape(message)) as caught:
        yield
    assert hint in caught.value.hint
    assert caught.value.hint
    assert "\n" not in caught.value.message
