"""Columns of Arrow as numbers of NumPy, for what a page shows.

Arrow's own ``to_numpy``, ``scalar`` and ``fill_null`` import pandas where it is installed, which takes longer than
reading all that the page of a job of 100,000 mini-batches needs. DLPack does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def numbers(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[Any]:
    """The values of a column of integers or floats that misses none, in its type; of truths, 0 and 1."""
    column = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
    whole = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
    return np.from_dlpack(whole) if len(whole) else np.empty(0, column.type.to_pandas_dtype())


def floats(column: pa.ChunkedArray | pa.Array, missing: float) -> npt.NDArray[np.float64]:
    """The values of a column of numbers as floats, with a given one in the place of those that are missing."""
    column = column.cast(pa.float64(), safe=False)
    values = np.full(len(column), missing)
    values[numbers(pc.is_valid(column)).astype(bool)] = numbers(column.drop_null())
    return values
