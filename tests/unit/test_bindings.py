"""Bindings: what ``${{…}}`` means at each place, and what becomes of it."""

from __future__ import annotations

import pytest

from batchpoint.entities.bindings import Binding, binding_of, references, required, substituted, without_unset
from batchpoint.errors import InvalidEntityError


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("${{parent.inputs.raw}}", Binding("parent_input", "raw")),
        ("${{ parent.inputs.raw }}", Binding("parent_input", "raw")),
        ("${{inputs.raw}}", Binding("parent_input", "raw")),
        ("${{parent.jobs.prepare.outputs.rows}}", Binding("step_output", "rows", "prepare")),
        ("${{jobs.prepare.outputs.rows}}", Binding("step_output", "rows", "prepare")),
        ("${{parent.outputs.scores}}", Binding("parent_output", "scores")),
        ("${{outputs.scores}}", Binding("parent_output", "scores")),
        ("plain", None),
        ("${{name}}", None),
        ("runs/${{name}}", None),
        (3, None),
        (None, None),
    ],
)
def test_a_binding_of_a_step_is_read_in_its_form_with_parent_and_in_the_older_one(
    text: object, binding: Binding | None
) -> None:
    assert binding_of(text) == binding


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${{parent.inputs.a.b}}", "${{parent.inputs.a.b}} names a member of a group."),
        ("${{parent.jobs.a.outputs.b.c}}", "${{parent.jobs.a.outputs.b.c}} names a member of a group."),
        ("${{parent.jobs.a.b}}", "${{parent.jobs.a.b}} is no binding. Bindings of a step are"),
        ("${{}}", "${{}} is no binding."),
        ("rows of ${{parent.inputs.a}}", "'rows of ${{parent.inputs.a}}' is a binding among other text."),
    ],
)
def test_what_is_no_binding_is_refused_with_the_forms_there_are(text: str, message: str) -> None:
    with pytest.raises(InvalidEntityError) as raised:
        binding_of(text)
    assert raised.value.message.startswith(message)


def test_a_binding_is_written_as_it_is_read() -> None:
    for text in ("${{parent.inputs.a}}", "${{parent.jobs.a.outputs.b}}", "${{parent.outputs.z}}"):
        assert str(binding_of(text)) == text
    assert [str(each) for each in references("${{inputs.a}} ${{outputs.b}} ${{name}}")] == [
        "${{inputs.a}}", "${{outputs.b}}", "${{name}}",
    ]  # fmt: skip


def test_a_command_speaks_of_its_own_inputs_and_outputs() -> None:
    command = "python a.py --in ${{inputs.raw}} $[[ --n ${{inputs.n}} ]] --out ${{outputs.rows}}"
    assert [each.name for each in references(command)] == ["raw", "n", "rows"]
    assert [each.name for each in required(command)] == ["raw", "rows"]
    assert substituted(command, {"inputs.raw": "/in", "outputs.rows": "/out"}) == (
        "python a.py --in /in $[[ --n ${{inputs.n}} ]] --out /out"
    )


def test_an_optional_segment_stays_only_when_its_inputs_are_given() -> None:
    command = "run$[[ --n ${{inputs.n}}]]$[[ --m ${{inputs.m}} ${{inputs.n}}]]"
    assert without_unset(command, {"n", "m"}) == "run --n ${{inputs.n}} --m ${{inputs.m}} ${{inputs.n}}"
    assert without_unset(command, {"n"}) == "run --n ${{inputs.n}}"
    assert without_unset(command, ()) == "run"
