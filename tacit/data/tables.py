"""The Arrow tables of a dataset, as LeRobot and pandas would have written them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def arrow(value: np.ndarray) -> pa.Array:
    """A scalar column for one number a row, a fixed-size list for more."""
    flat = pa.array(np.ascontiguousarray(value).ravel())
    width = value.size // max(1, len(value))
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """The task table as pandas would index it: without this note LeRobot reads every task as the number 0."""
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": n, "field_name": n, "pandas_type": kind, "numpy_type": held, "metadata": None}
        for n, (kind, held) in kinds.items()
    ]
    heading = {
        "name": None,
        "field_name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    note = {
        "index_columns": ["task"],
        "column_indexes": [heading],
        "columns": columns,
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table(
        {"task_index": pa.array(list(tasks.values()), pa.int64()), "task": pa.array(list(tasks), pa.string())}
    )
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(note)}), path)
