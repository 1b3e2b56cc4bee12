"""Plots: shapes of bounded size, in their place."""

from __future__ import annotations

import re

import pytest

from batchpoint.entities.run_reports import Histogram, TimeSpent, WorkerTime
from batchpoint.server.studio import plots
from batchpoint.server.studio.rendering import tick


def test_a_busy_worker_is_one_bar_however_long_it_works() -> None:
    assert plots.busy(WorkerTime(worker="a", busy=[0.99] * 96)) == [
        plots.Box("busy4", plots.LEFT, 0, plots.SPAN, 0),
    ]


def test_what_is_idle_is_left_out_and_shades_follow_the_share() -> None:
    boxes = plots.busy(WorkerTime(worker="a", busy=[0, 0.1, 0.3, 0.6, 1.0, 0, 0.1, 0.1]))
    assert [box.kind for box in boxes] == ["busy1", "busy2", "busy3", "busy4", "busy1"]
    assert [box.x for box in boxes] == [plots.LEFT + plots.SPAN / 8 * at for at in (1, 2, 3, 4, 6)]


def test_the_highest_column_is_as_high_as_the_plot() -> None:
    path = plots.columns([1, 4, 2], 80)
    assert [float(height) for height in re.findall(r"V([\d.]+)", path)] == [60, 0, 40, 80]
    assert plots.columns([0, 0], 80) == ""
    assert plots.columns([], 80) == ""


def test_shares_of_time_make_up_the_whole_line() -> None:
    boxes = plots.shares(TimeSpent(start_up=1, read=1, run=5, write=1, wait=2))
    assert [(box.kind, box.text) for box in boxes] == [
        ("start-up", "10%"), ("read", "10%"), ("run", "50%"), ("write", "10%"), ("wait", "20%"),
    ]  # fmt: skip
    assert boxes[0].x == plots.LEFT
    assert boxes[-1].x + boxes[-1].width == plots.LEFT + plots.SPAN
    assert {box.width for box in plots.shares(TimeSpent(start_up=0, read=0, run=0, write=0, wait=0))} == {0}


def test_a_histogram_has_a_column_for_each_stretch() -> None:
    boxes = plots.bins(Histogram(column="x", low=0, high=1, counts=[0, 5, 10], missing=0), 80)
    assert [(box.height, box.text) for box in boxes] == [(0, "0"), (40, "5"), (80, "10")]


def test_a_step_stands_to_the_right_of_all_that_it_reads_from() -> None:
    graph = plots.graph({"train": {"prepare"}, "prepare": set(), "score": {"train", "prepare"}, "report": set()})
    assert graph is not None
    columns = {node.name: node.x for node in graph.nodes}
    assert columns["prepare"] == columns["report"] < columns["train"] < columns["score"]
    places = [(node.x, node.y) for node in graph.nodes]
    assert len(set(places)) == 4
    assert all(x + plots.NODE_WIDTH <= graph.width and y + plots.NODE_HEIGHT <= graph.height for x, y in places)
    assert len(graph.edges) == 3


def test_a_graph_that_nobody_could_read_is_none() -> None:
    assert plots.graph({}) is None
    assert plots.graph({f"step_{at}": set() for at in range(plots.MOST_NODES + 1)}) is None
    chain = plots.graph({f"step_{at}": {f"step_{at - 1}"} if at else set() for at in range(plots.MOST_NODES)})
    assert chain is not None


def test_a_long_name_is_cut_on_the_page_alone() -> None:
    graph = plots.graph({"a" * 60: set()})
    assert graph is not None
    assert (len(graph.nodes[0].shown), len(graph.nodes[0].name)) == (plots.LONGEST_NAME, 60)


@pytest.mark.parametrize(
    ("length", "ticks"),
    [
        (0.1, ["0.00 s", "0.03 s", "0.05 s", "0.08 s", "0.10 s"]),
        (2, ["0.0 s", "0.5 s", "1.0 s", "1.5 s", "2.0 s"]),
        (40, ["0.0 s", "10 s", "20 s", "30 s", "40 s"]),
    ],
)
def test_the_ticks_of_an_axis_differ_however_short_it_is(length: float, ticks: list[str]) -> None:
    assert [tick(length * part / 4, length) for part in range(5)] == ticks
