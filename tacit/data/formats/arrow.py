"""One episode's table, in parquet or Arrow, read only if it cannot swell beyond what it says."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, final

from tacit.data.video import MOST, Damaged

WANTED = ("observations", "actions", "rewards")


@final
class Columns(dict[str, Any]):
    """Columns by their names, as a batch of rows has them."""

    def column(self, name: str) -> Any:
        return self[name]


def parquet(file: Path) -> Any:
    """An episode's table, whose strings stay a dictionary: one long string may be named a million times."""
    import pyarrow.parquet as pq

    about = pq.ParquetFile(file).metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    columns = [g.column(i) for g in groups for i in range(g.num_columns)]
    wide = {"INT32": 4, "FLOAT": 4}
    need = sum(max(c.total_uncompressed_size, c.num_values * wide.get(c.physical_type, 8)) for c in columns)
    if need > MOST or about.num_rows > MOST:
        raise Damaged(f"it says it holds {need / 1e9:.1f} GB; one episode may take {MOST / 1e9:.1f} GB.")
    texts = sorted({c.path_in_schema for c in columns if c.physical_type == "BYTE_ARRAY"})
    held = pq.ParquetFile(file, read_dictionary=texts)
    wanted = [n for n in held.schema_arrow.names if n in WANTED]
    table = held.read(columns=wanted)
    return Columns({n: table.column(n).combine_chunks() for n in wanted})


def plain(file: Path) -> Any:
    """An episode's table, of which nothing is packed: Minari packs none, and what is packed may swell."""
    import pyarrow as pa

    buffer = pa.py_buffer(file.read_bytes())
    if buffer[:8].to_pybytes() != b"ARROW1\0\0":
        raise Damaged(f"{file.name} is no Arrow file.")
    messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(buffer[8:]))
    schema, batches = pa.ipc.read_schema(messages.read_next_message()), []
    for message in messages:
        if message.type != "record batch" or _compressed(message.metadata.to_pybytes()):
            raise Damaged(f"{file.name} holds more than plain rows; Minari writes none such.")
        batches.append(pa.ipc.read_record_batch(message, schema))
        batches[-1].validate(full=True)  # offsets are the file's word, and would be followed out of its memory
    if len(batches) != 1:
        raise Damaged(f"{file.name} holds {len(batches)} batches of rows; wanted one.")
    return batches[0]


def _compressed(message: bytes) -> bool:
    """Whether the fourth field of a RecordBatch is there: its compression (Arrow's Message.fbs)."""

    def slot(table: int, number: int) -> int:
        index = table - struct.unpack_from("<i", message, table)[0]
        past = 4 + 2 * number >= struct.unpack_from("<H", message, index)[0]
        offset = 0 if past else struct.unpack_from("<H", message, index + 4 + 2 * number)[0]
        return table + offset if offset else 0

    head = slot(struct.unpack_from("<I", message, 0)[0], 2)
    return bool(slot(head + struct.unpack_from("<I", message, head)[0], 3))
