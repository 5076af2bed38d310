"""The jobs behind a batch's files, and the course of statuses that batches and jobs share."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from batchwatch.simulator.project import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchwatch.simulator.directory import DirectoryFile
    from batchwatch.simulator.life import Step
    from batchwatch.simulator.timeline import Micros, Timeline

JobType: TypeAlias = Literal["parse_v2", "extract_v2"]
JOB_ID_PREFIXES: Final[dict[JobType, str]] = {
    "parse_v2": "pjb",
    "extract_v2": "exj",  # ours: no page of the API shows the id of an extract job
}


class Course:
    """Statuses and the moments at which they begin: the steps of a life, set on the timeline."""

    __slots__ = ("moments", "statuses")

    def __init__(self, timeline: Timeline, birth: Micros, steps: Sequence[Step]) -> None:
        self.moments = [timeline.after(birth, step.after) for step in steps]
        self.statuses = [step.status for step in steps]

    def nth(self, at: Micros) -> int:
        """Which of the statuses holds at a moment; -1 before the first."""
        return bisect_right(self.moments, at) - 1

    def until(self, at: Micros) -> list[tuple[str, Micros]]:
        """The statuses up to a moment, and since when each held."""
        return list(zip(self.statuses, self.moments, strict=True))[: self.nth(at) + 1]


@dataclass(frozen=True, slots=True)
class JobConfig:
    """The job that a batch makes of each of its files."""

    type: JobType
    configuration_id: str


class Job(Row):
    """One parse or extract job; it is there from the moment its file was mapped to it."""

    __slots__ = ("_error_message", "_file", "config", "course")

    def __init__(
        self,
        job_id: str,
        course: Course,
        *,
        config: JobConfig,
        file: DirectoryFile,
        error_message: str | None,
    ) -> None:
        super().__init__(job_id, course.moments[0])
        self.course = course
        self.config = config
        self._file = file
        self._error_message = error_message

    def status(self, at: Micros) -> str | None:
        """Its status at a moment; None before it was made."""
        nth = self.course.nth(at)
        return self.course.statuses[nth] if nth >= 0 else None

    def picture(self, at: Micros) -> dict[str, Any]:
        """The job as lists show it."""
        project = self._file.directory.project
        nth = self.course.nth(at)
        status = self.course.statuses[nth]
        common = {
            "id": self.id,
            "project_id": project.id,
            "status": status,
            "error_message": self._error_message if status == "FAILED" else None,
            "created_at": project.timeline.shown(self.created),
            "updated_at": project.timeline.shown(self.course.moments[nth]),
            "usage": {"credits": 3.0} if status == "COMPLETED" else None,
        }
        if self.config.type == "parse_v2":
            name = self._file.wish.display_name
            return common | {"name": name, "tier": "agentic", "user_metadata": {}}
        return common | {
            "file_input": self._file.file_id,
            "configuration_id": self.config.configuration_id,
            "configuration": None,
            "extract_metadata": None,
            "extract_result": {"title": "Simulated"} if status == "COMPLETED" else None,
            "metadata": None,
        }
