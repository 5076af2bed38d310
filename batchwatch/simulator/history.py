"""The truth, for whoever judges a client: what happened, and what clients were shown of it.

No fault ever touches this. Times are those of the host's own clock, not of a skewed server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchwatch.simulator.batch import BatchFile
    from batchwatch.simulator.job import Course
    from batchwatch.simulator.timeline import Micros
    from batchwatch.simulator.world import World


def history(world: World) -> list[dict[str, Any]]:
    """Every batch with each status that it truly had until now, and its files and their jobs."""
    now = world.now()
    return [
        {
            "id": batch.id,
            "history": _written(world, batch.course, now),
            "files": [_file(world, file, now) for file in batch.files],
        }
        for batch in world.ever
    ]


def seen(world: World) -> list[dict[str, Any]]:
    """Every batch with those of its statuses that lists and lookups have shown, in order.

    A status that fell between two polls was never shown, nor was one in an answer that was broken
    on the way; an old status in a stale answer does not count once a later one was shown. What is
    here and not with a client's receivers is lost, unless the client died over that very answer.
    """
    return [
        {"id": batch.id, "statuses": [batch.course.statuses[nth] for nth in batch.seen]}
        for batch in world.ever
    ]


def _file(world: World, file: BatchFile, now: Micros) -> dict[str, Any]:
    known = now >= file.mapped
    job = None
    if known and file.job is not None:
        job = {
            "type": file.job.config.type,
            "id": file.job.id,
            "history": _written(world, file.job.course, now),
        }
    return {
        "source_directory_file_id": file.source.id,
        "error_message": file.error_message if known else None,
        "job": job,
    }


def _written(world: World, course: Course, now: Micros) -> list[dict[str, str]]:
    return [
        {"status": status, "at": world.timeline.true(moment)}
        for status, moment in course.until(now)
    ]
