"""JSON that programs send, read leniently where other programs write a comma too many."""

from __future__ import annotations

import pytest

from batchpoint.errors import InvalidEntityError
from batchpoint.server.bodies import _parsed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2,], "b": {"c": "x,}",},}', {"a": [1, 2], "b": {"c": "x,}"}}),
        ('["a\\",]", 1, ]', ['a",]', 1]),
        ("[1]", [1]),
    ],
)
def test_a_comma_after_the_last_item_is_left_out_and_those_in_texts_stay(text: str, value: object) -> None:
    assert _parsed(text.encode(), lenient=True) == value


@pytest.mark.timeout(20)
def test_a_text_without_an_end_is_refused_at_once_however_long() -> None:
    # Trying each of its quotes as the beginning of a text took minutes, and with them the whole server.
    with pytest.raises(InvalidEntityError, match="not JSON"):
        _parsed(b'{"a": "' + b'\\"' * 500_000, lenient=True)
