"""Names made of the values of partition keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from batchpoint.entities.key_patterns import KeyPattern, key_text

AT = datetime(2026, 3, 29, 1, 30, 5, tzinfo=UTC)


def test_a_name_is_read_back_in_every_way_that_it_could_have_been_made() -> None:
    pattern = KeyPattern("model_{Device}_{Sensor}")
    assert pattern.prefix == "model_"
    assert pattern.keys_of("model_1_2") == [{"Device": "1", "Sensor": "2"}]
    assert pattern.keys_of("model_1_2_3") == [{"Device": "1", "Sensor": "2_3"}, {"Device": "1_2", "Sensor": "3"}]
    for name in ("model_1", "model__2", "other_1_2", "model_1_"):
        assert pattern.keys_of(name) == [], name
    assert KeyPattern("{day}.pkl").keys_of("2026.pkl.pkl") == [{"day": "2026.pkl"}]
    assert KeyPattern("all").keys_of("all") == [{}]
    assert KeyPattern("{a}-{b}").keys_of("1\n-2") == [{"a": "1\n", "b": "2"}]
    assert KeyPattern("({a}.{b}.{c}").keys_of("(1.2.3.4") == [
        {"a": "1", "b": "2", "c": "3.4"},
        {"a": "1", "b": "2.3", "c": "4"},
        {"a": "1.2", "b": "3", "c": "4"},
    ]


def test_a_file_name_holds_the_time_of_submission_in_utc_whatever_zone_it_was_told_in() -> None:
    pattern = KeyPattern("preds_{Device}_{submitted:%y%m%d%H%M%S}.csv")
    assert pattern.file_name({"Device": "1"}, AT) == "preds_1_260329013005.csv"
    assert pattern.file_name({"Device": "1"}, AT.astimezone(timezone(timedelta(hours=2)))) == "preds_1_260329013005.csv"
    assert KeyPattern("{Device} {submitted}").file_name({"Device": "1"}, AT) == "1 20260329T013005Z"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a/b", "a%2Fb.csv"),
        ("a\\b", "a%5Cb.csv"),
        ("50%", "50%25.csv"),
        ("..", "%2E..csv"),
        ("x:y*?", "x%3Ay%2A%3F.csv"),
        ("Zürich\n", "Z%C3%BCrich%0A.csv"),
        ("", ".csv".replace(".", "%2E")),
        ("plain (1), -2_3", "plain (1), -2_3.csv"),
    ],
)
def test_what_file_names_cannot_hold_is_escaped_and_no_two_values_give_one_name(value: str, name: str) -> None:
    assert KeyPattern("{a}.csv").file_name({"a": value}, AT) == name


def test_a_name_that_no_file_may_have_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        KeyPattern("{a}.csv").file_name({"a": "x" * 252}, AT)
    assert len(KeyPattern("{a}.csv").file_name({"a": "x" * 251}, AT)) == 255


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_{Device", "cannot be read"),
        ("model_{}", "without a name"),
        ("{a}_{a}", "twice"),
        ("{a}{b}", "nothing between"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KeyPattern(text)


def test_a_pattern_names_every_key_and_nothing_else() -> None:
    KeyPattern("{a}_{b}").check_fields(["b", "a"])
    KeyPattern("{a}_{submitted:%y}").check_fields(["a"], also=["submitted"])
    with pytest.raises(ValueError, match=r"lacks \{b\}"):
        KeyPattern("{a}").check_fields(["a", "b"])
    with pytest.raises(ValueError, match=r"\{c\} in .* is not a partition key; these are a"):
        KeyPattern("{a}_{c}").check_fields(["a"])


def test_a_whole_number_is_known_by_its_digits_however_its_column_is_typed() -> None:
    assert [key_text(value) for value in (1, 1.0, "1", 1.5, None, True)] == ["1", "1", "1", "1.5", "", "True"]
