"""Which files an input has, in which order, and which are left out."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest

from batchpoint.errors import InputError
from batchpoint.storage.datastores import Stores
from batchpoint.storage.inputs import list_input, matches


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv", ".hidden", "_SUCCESS", "sub/c.csv", "sub/deep/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def names(*places: str | Path, **options: object) -> list[str]:
    listing = list_input(Stores(), [(str(place), None) for place in places], **options)  # type: ignore[arg-type]  # passed through
    return [file.name for file in listing.files]


def test_a_folder_gives_its_direct_children_in_the_order_of_their_bytes(folder: Path) -> None:
    assert names(folder) == [".hidden", "_SUCCESS", "a.csv", "b.csv"]


def test_sub_folders_are_explored_when_asked(folder: Path) -> None:
    assert names(folder, recursive=True) == [".hidden", "_SUCCESS", "a.csv", "b.csv", "sub/c.csv", "sub/deep/d.txt"]


def test_what_is_left_out_is_listed_with_the_reason(folder: Path) -> None:
    listing = list_input(Stores(), [(str(folder), None)], include=["*.csv", "**/*.csv"], exclude=["b*"], recursive=True)
    assert [file.name for file in listing.files] == ["a.csv", "sub/c.csv"]
    assert [(item.name, item.reason) for item in listing.skipped] == [
        (".hidden", "not included"), ("_SUCCESS", "not included"), ("b.csv", "excluded by b*"),
        ("sub/deep/d.txt", "not included"),
    ]  # fmt: skip


def test_files_globs_and_several_places_are_taken_in_their_order(folder: Path) -> None:
    assert names(folder / "b.csv", folder / "a.csv") == ["b.csv", "a.csv"]
    assert names(folder / "*.csv") == ["a.csv", "b.csv"]
    assert names(folder / "**" / "*.csv") == ["a.csv", "b.csv", "sub/c.csv"]


def test_names_that_clash_get_the_number_of_their_place(folder: Path) -> None:
    (folder / "sub" / "a.csv").write_text("y")
    assert names(folder / "a.csv", folder / "sub" / "a.csv") == ["1/a.csv", "2/a.csv"]


def test_nothing_to_score_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds no file.*'recursive'"):
        names(tmp_path / "empty")
    with pytest.raises(InputError, match="all 4 files are left out"):
        names(folder, include=["*.parquet"])
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        names(folder / "nowhere.csv")
    with pytest.raises(InputError, match="No file matches"):
        names(folder / "*.orc")


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("a/b.csv", "*.csv", True), ("a/b.csv", "a/*.csv", True), ("a/b/c.csv", "a/*.csv", False),
        ("a/b/c.csv", "a/**/*.csv", True), ("a/c.csv", "a/**/*.csv", True), ("x1.csv", "x[0-9].csv", True),
        ("x1.csv", "x[!0-9].csv", False), ("x.csv", "?.csv", True), ("x+csv", "x.csv", False),
    ],
)  # fmt: skip
def test_globs_compare_as_documented(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, pattern) is expected


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without writing a line for each request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_file_on_the_web_is_an_input(folder: Path, tmp_path: Path) -> None:
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_port}"
            stores = Stores()
            (file,) = list_input(stores, [(f"{root}/a.csv?version=1", None)]).files
            assert (file.name, file.size) == ("a.csv", 1)
            assert stores.fetch(file.url, tmp_path / "got").read_text() == "x"
            with pytest.raises(InputError, match="does not exist"):
                list_input(stores, [(f"{root}/no.csv", None)])
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(InputError, match="its server does not answer"):
        list_input(stores, [(f"{root}/a.csv", None)])
