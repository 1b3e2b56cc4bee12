"""Pieces of a log: whole lines, in either direction, none left out, none read twice."""

from __future__ import annotations

import io

import pytest

from batchpoint.operations import log_lines
from batchpoint.operations.log_lines import piece_from, piece_until, search

LINES = [f"line {number} {'ä' * (number % 7)}\n".encode() for number in range(400)]
TEXT = b"".join(LINES)


@pytest.mark.parametrize("limit", [30, 64, 1000, len(TEXT), 10 * len(TEXT)])
def test_pieces_follow_each_other_to_the_end_and_back_again(limit: int) -> None:
    forwards, at = [], 0
    while at < len(TEXT):
        piece = piece_from(io.BytesIO(TEXT), at, len(TEXT), limit)
        assert piece.start == at
        assert piece.text.endswith("\n")
        forwards.append(piece.text)
        at = piece.end
    assert "".join(forwards).encode() == TEXT
    backwards, until = [], len(TEXT)
    while until:
        piece = piece_until(io.BytesIO(TEXT), until, len(TEXT), limit)
        assert piece.end == until
        backwards.append(piece.text)
        until = piece.start
    assert "".join(backwards[::-1]).encode() == TEXT


def test_the_end_is_counted_from_behind() -> None:
    piece = piece_from(io.BytesIO(TEXT), -40, len(TEXT), 1000)
    assert piece.text.encode() == TEXT[piece.start :]
    assert len(TEXT) - piece.start <= 40


def test_a_line_longer_than_a_piece_is_shown_in_parts() -> None:
    text = b"short\n" + b"x" * 500 + b"\nshort\n"
    at, seen = 0, b""
    while at < len(text):
        piece = piece_from(io.BytesIO(text), at, len(text), 100)
        assert piece.end > at
        seen, at = seen + piece.text.encode(), piece.end
    assert seen == text
    until = len(text)
    seen = b""
    while until:
        piece = piece_until(io.BytesIO(text), until, len(text), 100)
        seen, until = piece.text.encode() + seen, piece.start
    assert seen == text


def test_nothing_is_a_piece_too() -> None:
    assert piece_from(io.BytesIO(b""), -100, 0, 100).text == ""
    assert piece_until(io.BytesIO(b""), 5, 0, 100).text == ""


@pytest.mark.parametrize("block", [61, 128, 1 << 20])
def test_a_search_finds_each_line_once_however_the_file_is_read(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(log_lines, "BLOCK", block)
    found = search(io.BytesIO(TEXT), "LINE 3", 0, len(TEXT))
    lines = [f"line {number} {'ä' * (number % 7)}" for number in range(400) if str(number).startswith("3")]
    assert [hit.text for hit in found.hits] == lines
    assert found.following is None
    for hit in found.hits:
        assert TEXT[hit.start :].decode().startswith(hit.text)


def test_a_search_goes_on_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "MOST_HITS", 7)
    monkeypatch.setattr(log_lines, "MOST_SEARCHED", 900)
    monkeypatch.setattr(log_lines, "BLOCK", 128)
    at: int | None = 0
    seen: list[int] = []
    while at is not None:
        found = search(io.BytesIO(TEXT), "line", at, len(TEXT))
        seen += [hit.start for hit in found.hits]
        at = found.following
    assert len(seen) == len(set(seen)) == 400
