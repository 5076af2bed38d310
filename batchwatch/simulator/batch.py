"""A batch on the timeline: its status, files and results at any moment, past or present."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchwatch.simulator.job import JOB_ID_PREFIXES, Course, Job, JobConfig
from batchwatch.simulator.life import TERMINAL
from batchwatch.simulator.project import Row
from batchwatch.simulator.timeline import NEVER

if TYPE_CHECKING:
    from batchwatch.simulator.directory import Directory, DirectoryFile
    from batchwatch.simulator.life import Life
    from batchwatch.simulator.project import Origin
    from batchwatch.simulator.timeline import Micros


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A source file and what becomes of it at ``mapped``: a job, an error, or neither."""

    source: DirectoryFile
    mapped: Micros
    job: Job | None
    error_message: str | None

    def result(self, at: Micros) -> dict[str, Any]:
        """The file's line in the results at a moment."""
        known = at >= self.mapped
        job = self.job if known else None
        return {
            "source_directory_file_id": self.source.id,
            "job_reference": None if job is None else {"type": job.config.type, "id": job.id},
            "error_message": self.error_message if known else None,
        }


class Batch(Row):
    """A batch that lives its life, or what a call to cancel leaves of it.

    All that a moment shows follows from the life, so there is nothing to keep up to date. What
    lists show of a status never changes and is encoded once.
    """

    __slots__ = (
        "_encoded",
        "_file_count",
        "_files",
        "config",
        "course",
        "directory",
        "life",
        "listed",
        "origin",
        "seen",
    )

    def __init__(
        self,
        directory: Directory,
        origin: Origin,
        created: Micros,
        *,
        config: JobConfig,
        life: Life,
    ) -> None:
        super().__init__(directory.project.name("bat", "batch", *origin), created)
        self.directory = directory
        self.origin = origin
        self.config = config
        self.listed = directory.project.timeline.after(created, life.listed_after)
        self.seen: list[int] = []  # which statuses clients were shown, as places in the course
        self._file_count = directory.size  # files that come later are not part of it
        self._live(life)

    def _live(self, life: Life) -> None:
        self.life = life
        self.course = Course(self.directory.project.timeline, self.created, life.steps)
        self._encoded: dict[int, bytes] = {}
        self._files: list[BatchFile] | None = None

    def cancel(self, at: Micros) -> None:
        """Begin to stop; the statuses that the past has shown stay as they were."""
        timeline = self.directory.project.timeline
        self._live(self.life.cancelled(timeline.between(self.created, at)))

    def status(self, at: Micros) -> str:
        """Its status at a moment."""
        return self.course.statuses[self.course.nth(at)]

    @property
    def ended(self) -> Micros:
        """When it reaches its terminal status; never, if it is stuck for good."""
        last = self.course.statuses[-1]
        return self.course.moments[-1] if last in TERMINAL else NEVER

    @property
    def files(self) -> list[BatchFile]:
        """Its files and their fates, in the directory's order."""
        if self._files is None:
            sources = self.directory.files[: self._file_count]
            self._files = [self._file(nth, source) for nth, source in enumerate(sources)]
        return self._files

    def _file(self, nth: int, source: DirectoryFile) -> BatchFile:
        project = self.directory.project
        fate = self.life.file(nth, project.stream("fate", *self.origin, nth))
        job = None
        if fate.job is not None:
            job = Job(
                project.name(JOB_ID_PREFIXES[self.config.type], "job", *self.origin, nth),
                Course(project.timeline, self.created, fate.job.steps),
                config=self.config,
                file=source,
                error_message=fate.job.error_message,
            )
        mapped = project.timeline.after(self.created, fate.mapped_after)
        return BatchFile(source, mapped, job, fate.error_message)

    def results(self, at: Micros) -> list[dict[str, Any]] | None:
        """The outcome of each file; None while there is none to be had.

        A batch that FAILED never has any: it "cannot provide a reliable per-file result set".
        """
        timeline = self.directory.project.timeline
        if self.status(at) == "FAILED" or self.ended == NEVER:
            return None
        if at < timeline.after(self.ended, self.life.results_late):
            return None
        return [file.result(at) for file in self.files]

    def picture(self, at: Micros) -> dict[str, Any]:
        """The batch as lists show it, without results."""
        timeline = self.directory.project.timeline
        nth = self.course.nth(at)
        return {
            "id": self.id,
            "project_id": self.directory.project.id,
            "source_directory_id": self.directory.id,
            "config": {
                "job": {
                    "type": self.config.type,
                    "configuration_id": self.config.configuration_id,
                }
            },
            "status": self.course.statuses[nth],
            "results": None,
            "created_at": timeline.shown(self.created),
            "updated_at": timeline.shown(self.course.moments[nth]),
        }

    def encoded(self, at: Micros) -> bytes:
        """The picture as JSON, made once for each status."""
        nth = self.course.nth(at)
        if nth not in self._encoded:
            self._encoded[nth] = super().encoded(at)
        return self._encoded[nth]

    def note_seen(self, at: Micros) -> None:
        """Remember that a client was shown the status of a moment, if that is news."""
        nth = self.course.nth(at)
        if not self.seen or nth > self.seen[-1]:
            self.seen.append(nth)
