"""Columns of Arrow become numbers of NumPy, without pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from batchpoint.operations.arrow_numbers import floats, numbers


@pytest.mark.parametrize("chunks", [[], [[]], [[1, 2], [], [3]]])
def test_the_numbers_of_a_column_are_those_of_all_its_chunks_in_its_type(chunks: list[list[int]]) -> None:
    found = numbers(pa.chunked_array(chunks, pa.int32()))
    assert (found.tolist(), found.dtype) == ([each for chunk in chunks for each in chunk], np.int32)


def test_truths_are_ones_and_zeros_and_a_slice_is_its_own() -> None:
    assert numbers(pa.array([True, False, True])).tolist() == [1, 0, 1]
    assert numbers(pa.array([1.5, 2.5, 3.5]).slice(1, 1)).tolist() == [2.5]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float32(), pa.uint8()])
def test_a_number_that_is_missing_is_told_by_the_one_in_its_place(kind: pa.DataType) -> None:
    column = pa.chunked_array([[None, 1], [2, None]], kind)
    assert floats(column, missing=-1.0).tolist() == [-1.0, 1.0, 2.0, -1.0]
    assert np.isnan(floats(column, missing=float("nan"))).tolist() == [True, False, False, True]
    assert floats(pa.nulls(2, kind), missing=0.0).tolist() == [0.0, 0.0]


def test_what_a_page_shows_of_a_job_does_not_wait_for_pandas() -> None:
    program = (
        "import io, sys\n"
        "from batchpoint.operations.histograms import histograms_of\n"
        "from batchpoint.operations.run_reports import attempts_of\n"
        "assert histograms_of(io.BytesIO(b'a,b\\n1,\\n3,2.5\\n'), 'p.csv', ()).rows == 2\n"
        "header = b'Process,Process Start Time,Total,Succeeded,Elapsed Seconds,Process Seconds,Run Method Seconds,'\n"
        "header += b'Status,Mini-batch Detail\\n'\n"
        "rows = b'w0,2026-11-28 01:02:03.5,3,3,1,0.5,0.2,RUN_DONE,\\n'\n"
        "rows += b'w1,2026-11-28 01:02:03.5,3,1,1,0,0,RUN_ERROR,\\n'\n"
        "assert attempts_of(header + rows).is_failed.tolist() == [False, True]\n"
        "print('pandas' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
