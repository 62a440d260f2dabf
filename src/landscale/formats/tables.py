"""Read tables and lists: csv with commas, semicolons or tabs, and parquet; both of limited size."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.errors import BadInput, reason
from landscale.formats.content import read_text
from landscale.runtime.files import check_regular

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_SEPARATORS = ",;\t"
MAX_PARQUET = 512 << 20  # bytes, in the file and in memory; metadata.parquet of BigEarthNet v2 has 5 and 120 MB
MAX_ROWS = 10_000_000
_BATCH = 4096  # rows that are decoded between two checks of the size


@dataclass(frozen=True)
class Rows:
    """The rows of a csv: cells without blanks around them, empty rows left out. lines: the number of each row's last line."""

    cells: list[list[str]]
    lines: list[int]


def read_rows(path: Path) -> Rows:
    """The rows of a csv. Its separator is the comma, semicolon or tab that comes first in its first row, outside quotes.

    Raises:
        BadInput: as `read_text`; or quotes are not closed.
    """
    text = read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator(first), skipinitialspace=True, strict=True)
    rows = Rows([], [])
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.cells.append(cells)
                rows.lines.append(reader.line_num)
    except csv.Error as error:
        raise BadInput(path, f"cannot be read as a table: line {reader.line_num}: {error}") from None
    return rows


def separator(line: str) -> str:
    """The separator of a csv by its first row: the one that comes first outside quotes; a comma if there is none."""
    quoted = False
    for character in line:
        quoted ^= character == '"'
        if character in _SEPARATORS and not quoted:
            return character
    return ","


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns of a csv with header, and its rows. A first column of row numbers without a name is left out.

    Raises:
        BadInput: as `read_rows`; no row, a row with another number of cells than the header, or a column without a name.
    """
    rows = read_rows(path)
    if len(rows.cells) < 2:
        raise BadInput(path, "has no rows below its header")
    header, *body = rows.cells
    for line, row in zip(rows.lines[1:], body, strict=True):
        if len(row) != len(header):
            raise BadInput(path, f"line {line} has {len(row)} cells, the header has {len(header)}")
    if not header[0] and all(row[0].isdecimal() for row in body):  # written by pandas
        header, body = header[1:], [row[1:] for row in body]
    if "" in header:
        raise BadInput(path, f"column {header.index('') + 1} has no name in the header")
    return header, body


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file as an Arrow table; checksums of its pages are verified where it has them.

    Args:
        path: the file.
        columns: names of the columns to read, those that exist; by default all.

    Raises:
        BadInput: no regular file, damaged, or more than `MAX_ROWS` rows or `MAX_PARQUET` bytes, by its header or in memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_regular(path, MAX_PARQUET)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.metadata
            size = sum(found.row_group(k).total_byte_size for k in range(found.num_row_groups))
            _check_size(path, found.num_rows, size)
            names = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
            batches: list[Any] = []
            size = rows = 0
            for batch in file.iter_batches(_BATCH, columns=names):
                batches.append(batch)
                size, rows = size + batch.nbytes, rows + len(batch)
                _check_size(path, rows, size)
            schema = batches[0].schema if batches else file.schema_arrow
            table = pa.Table.from_batches(batches, schema)
            table.validate(full=True)  # damaged text
    except BadInput:
        raise
    except Exception as error:  # Arrow raises many types of errors for a damaged file
        raise BadInput(path, f"cannot be read as parquet ({reason(error)})") from None
    return table


def read_parquet_frame(path: Path) -> pd.DataFrame:
    """A parquet file as a data frame, with the index that pandas wrote.

    Raises:
        BadInput: as `read_parquet`; or what pandas wrote about its columns is damaged.
    """
    table = read_parquet(path)
    try:
        frame: pd.DataFrame = table.to_pandas()
    except Exception as error:  # Arrow and pandas raise many types of errors for damaged metadata
        raise BadInput(path, f"cannot be read as parquet ({reason(error)})") from None
    return frame


def _check_size(path: Path, rows: int, size: int) -> None:
    if rows > MAX_ROWS or size > MAX_PARQUET:
        problem = f"has {rows:,} rows and {size:,} bytes"
        raise BadInput(path, f"{problem}, expected at most {MAX_ROWS:,} rows and {MAX_PARQUET:,} bytes")
