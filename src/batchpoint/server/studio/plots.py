"""Facts → shapes of plots, for templates to write as SVG. Pure: nothing here knows a request.

All plots are ``WIDTH`` wide and leave ``LEFT`` for words; colours are classes of the style sheet. How large a plot is
does not depend on how much it tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from batchpoint.entities.run_reports import Histogram, TimeSpent, WorkerTime

WIDTH, LEFT, RIGHT = 960, 150, 10
SPAN = WIDTH - LEFT - RIGHT
LEVELS = 4
"""Shades of busy."""
NODE_WIDTH, NODE_HEIGHT, GAP_X, GAP_Y = 190, 46, 60, 16
MOST_NODES = 200
LONGEST_NAME = 24


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A step in the graph of a pipeline."""

    name: str
    x: int
    y: int

    @property
    def shown(self) -> str:
        """As much of the name as fits."""
        return self.name if len(self.name) <= LONGEST_NAME else f"{self.name[: LONGEST_NAME - 1]}…"


@dataclass(frozen=True, slots=True)
class Graph:
    """Where the steps stand, and the lines between them."""

    nodes: Sequence[Node]
    edges: Sequence[str]
    """Paths."""
    width: int
    height: int


def busy(worker: WorkerTime) -> list[Box]:
    """The stretches in which a worker scored; neighbours of the same shade are one."""
    width = SPAN / max(len(worker.busy), 1)
    boxes, at = [], 0
    for level, group in groupby(worker.busy, _level):
        length = len([*group])
        if level:
            boxes.append(Box(f"busy{level}", round(LEFT + at * width, 1), 0, round(length * width, 1), 0))
        at += length
    return boxes


def _level(share: float) -> int:
    return 0 if share <= 0 else min(LEVELS, int(share * LEVELS) + 1)


def columns(values: Sequence[float], height: float, *, top: float | None = None) -> str:
    """A path of columns side by side, the highest ``height`` high; ``top`` is what that stands for."""
    top = top or max(values, default=0)
    if not top:
        return ""
    width, steps = SPAN / len(values), [f"M{LEFT} {height:g}"]
    for at, value in enumerate(values):
        steps.append(f"V{height - height * min(value / top, 1):.1f}H{LEFT + (at + 1) * width:.1f}")
    return "".join([*steps, f"V{height:g}Z"])


def shares(spent: TimeSpent) -> list[Box]:
    """Where the time of the workers went, as parts of one line."""
    seconds: Mapping[str, float] = {name.replace("_", "-"): value for name, value in spent.model_dump().items()}
    whole = sum(seconds.values())
    boxes, x = [], float(LEFT)
    for name, value in seconds.items():
        width = SPAN * value / whole if whole else 0
        boxes.append(Box(name, round(x, 1), 0, round(width, 1), 0, f"{value / whole:.0%}" if whole else ""))
        x += width
    return boxes


def bins(shown: Histogram, height: float) -> list[Box]:
    """The columns of a histogram, each with how many values it stands for."""
    top, width = max(shown.counts), SPAN / len(shown.counts)
    found = []
    for at, count in enumerate(shown.counts):
        tall = round(height * count / top, 1)
        found.append(Box("bin", round(LEFT + at * width, 1), height - tall, round(width - 1, 1), tall, f"{count:,}"))
    return found


def graph(reads: Mapping[str, set[str]]) -> Graph | None:
    """Steps in columns, each to the right of all that it reads from; None when there are too many to be seen.

    Args:
        reads: for each step those whose outputs it reads; none depends on itself.
    """
    if not 0 < len(reads) <= MOST_NODES:
        return None
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max((depth(other) for other in reads[name] if other in reads), default=-1)
        return depths[name]

    filled: dict[int, int] = {}
    nodes: dict[str, Node] = {}
    for name in reads:
        column = depth(name)
        row = filled.get(column, 0)
        filled[column] = row + 1
        nodes[name] = Node(name, 2 + column * (NODE_WIDTH + GAP_X), 2 + row * (NODE_HEIGHT + GAP_Y))
    edges = [
        _edge(nodes[other], nodes[name]) for name, others in reads.items() for other in sorted(others) if other in nodes
    ]
    width = (max(filled) + 1) * (NODE_WIDTH + GAP_X) - GAP_X + 4
    height = max(filled.values()) * (NODE_HEIGHT + GAP_Y) + 4
    return Graph([*nodes.values()], edges, width, height)


def _edge(start: Node, end: Node) -> str:
    x, y, to_x, to_y = start.x + NODE_WIDTH, start.y + NODE_HEIGHT // 2, end.x, end.y + NODE_HEIGHT // 2
    bend = (to_x - x) // 2
    # What goes past other steps of its row goes below them.
    below = NODE_HEIGHT if y == to_y and to_x - x > GAP_X else 0
    return f"M{x} {y}C{x + bend} {y + below} {to_x - bend} {to_y + below} {to_x} {to_y}"
