"""Bindings: ``${{…}}`` in the texts of a pipeline, which say where a value comes from or where an output goes.

Forms are those of Azure ML's pipeline YAML. In the inputs and outputs of a step a binding stands alone and speaks of
the pipeline that the step is in (``parent.``, which the older form leaves out); inside commands, arguments and paths it
stands among other text and speaks of the step's own inputs and outputs, or is a macro.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from batchpoint.errors import InvalidEntityError

TRIGGER_TIME = "creation_context.trigger_time"
"""When the pipeline was started, or its schedule fired."""
MACROS = ("name", "default_datastore", "output_name", TRIGGER_TIME)
"""Words that stand for themselves, in paths and literals."""

FORMS = (
    "Bindings of a step are ${{parent.inputs.<input>}}, ${{parent.jobs.<step>.outputs.<output>}} and "
    "${{parent.outputs.<output>}}; in commands ${{inputs.<input>}} and ${{outputs.<output>}}."
)

_BINDING = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_SEGMENT = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)

Kind = Literal["parent_input", "parent_output", "step_output", "input", "output", "macro"]


@dataclass(frozen=True, slots=True)
class Binding:
    """One ``${{…}}``."""

    kind: Kind
    name: str
    """Of the input, output or macro."""
    step: str | None = None
    """The step whose output it is, of a ``step_output``."""

    def __str__(self) -> str:
        words = {
            "parent_input": f"parent.inputs.{self.name}",
            "parent_output": f"parent.outputs.{self.name}",
            "step_output": f"parent.jobs.{self.step}.outputs.{self.name}",
            "input": f"inputs.{self.name}",
            "output": f"outputs.{self.name}",
            "macro": self.name,
        }
        return f"${{{{{words[self.kind]}}}}}"


def binding_of(text: object) -> Binding | None:
    """The binding that an input or output of a step is; None when it is something else, such as plain text.

    Raises:
        InvalidEntityError: it holds a binding of no known form, or one among other text.
    """
    if not isinstance(text, str) or not (found := _BINDING.search(text)):
        return None
    read = _read(found[1].strip(), of_parent=True)
    if read.kind == "macro":
        return None
    if found[0] != text.strip():
        raise InvalidEntityError(f"{text!r} is a binding among other text. A step's binding stands alone.")
    return read


def references(text: str) -> list[Binding]:
    """Every binding of a command, of arguments or of a path, in order; those of optional segments too.

    Raises:
        InvalidEntityError: one of them is of no known form.
    """
    return [_read(found[1].strip(), of_parent=False) for found in _BINDING.finditer(text)]


def substituted(text: str, values: Mapping[str, str]) -> str:
    """The text with ``${{key}}`` replaced for every key that ``values`` knows (``inputs.x``, ``name``); others stay."""

    def value(found: re.Match[str]) -> str:
        return values.get(found[1].strip(), found[0])

    return _BINDING.sub(value, text)


def without_unset(text: str, given: Collection[str]) -> str:
    """The text without the optional segments ``$[[…]]`` that speak of an input not in ``given``; others lose their
    brackets."""

    def kept(found: re.Match[str]) -> str:
        wanted = {each.name for each in references(found[1]) if each.kind == "input"}
        return found[1] if wanted <= set(given) else ""

    return _SEGMENT.sub(kept, text)


def required(text: str) -> list[Binding]:
    """The bindings of a text that stand outside of optional segments.

    Raises:
        InvalidEntityError: one of them is of no known form.
    """
    return references(_SEGMENT.sub("", text))


def _read(inside: str, *, of_parent: bool) -> Binding:
    if inside in MACROS:
        return Binding("macro", inside)
    words = inside.split(".")
    belongs_to_parent = words[0] == "parent"
    if belongs_to_parent:
        words = words[1:]
    match words:
        case ["inputs", name]:
            return Binding("parent_input" if of_parent or belongs_to_parent else "input", name)
        case ["outputs", name]:
            return Binding("parent_output" if of_parent or belongs_to_parent else "output", name)
        case ["jobs", step, "outputs", name]:
            return Binding("step_output", name, step)
        case ["inputs" | "outputs", _, _, *_] | ["jobs", _, "outputs", _, _, *_]:
            message = f"${{{{{inside}}}}} names a member of a group. Groups are not known here: give each by itself."
            raise InvalidEntityError(message)
    raise InvalidEntityError(f"${{{{{inside}}}}} is no binding. {FORMS}")
