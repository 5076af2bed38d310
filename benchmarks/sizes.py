"""What a batch's rows take on PostgreSQL, tables and indices, in a store that was filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.filled import fill, the_moment
from benchmarks.postgres import analyse, connected, database, server
from benchmarks.results import Column, Finding

if TYPE_CHECKING:
    from benchmarks.progress import Progress
    from benchmarks.results import Cell

BATCHES: Final = 20_000
QUICK_BATCHES: Final = 5_000
_TABLES: Final = """
SELECT relname, n_live_tup, pg_table_size(relid), pg_indexes_size(relid)
FROM pg_stat_user_tables WHERE n_live_tup > 100 ORDER BY pg_total_relation_size(relid) DESC
"""
_INDICES: Final = """
SELECT indexrelname, relname, pg_relation_size(indexrelid)
FROM pg_stat_user_indexes WHERE relname = ANY($1) ORDER BY relname, 3 DESC
"""

OF_TABLES: Final = (
    Column("table", "table"),
    Column("rows", "rows", ",.0f"),
    Column("of_row", "a row, bytes", ",.0f"),
    Column("of_indices", "its indices", ",.0f"),
    Column("of_batch", "a batch", ",.0f"),
)
OF_INDICES: Final = (
    Column("index", "index"),
    Column("table", "of"),
    Column("of_row", "a row of its table, bytes", ",.1f"),
)


async def run(progress: Progress, *, quick: bool) -> list[Finding]:
    """Fill a store, and ask PostgreSQL how large it is."""
    count = QUICK_BATCHES if quick else BATCHES
    progress.stage(f"sizes: {count:,} batches")
    with server() as postgres:
        async with database(postgres) as url:
            await fill(url, count=count, now=the_moment())
            await analyse(url)
            async with connected(url) as connection:
                tables = await connection.fetch(_TABLES)
                found = await connection.fetch(_INDICES, [one[0] for one in tables])
    rows: list[dict[str, Cell]] = [
        {
            "table": name,
            "rows": number,
            "of_row": own / number,
            "of_indices": indices / number,
            "of_batch": None if name == "file_outcomes" else (own + indices) / count,
        }
        for name, number, own, indices in tables
    ]
    numbers = {name: number for name, number, *_ in tables}
    return [
        Finding(
            title=f"Tables of a store of {count:,} batches with five events each",
            columns=OF_TABLES,
            rows=rows,
            notes=[
                "Filled in bulk: rows that change while they live take more until a vacuum.",
                "The files are those of one batch of 1,000; others have as many as they have.",
            ],
        ),
        Finding(
            title="Their indices",
            columns=OF_INDICES,
            rows=[
                {"index": name, "table": table, "of_row": size / numbers[table]}
                for name, table, size in found
            ],
        ),
    ]
