"""The official llama-cloud client works against the simulator, unchanged."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from llama_cloud import (
    AsyncLlamaCloud,
    AuthenticationError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)

from batchwatch.simulator import FileLife, JobLife, Simulator, Step, Switch, a_life
from tests.support.clock import EPOCH

if TYPE_CHECKING:
    from llama_cloud.types import BatchCreateResponse

    from tests.support.clock import ManualClock

A_FULL_LIFE = (("PENDING", 0), ("RUNNING", 5), ("COMPLETED", 20))
LONG_ENOUGH = 60  # seconds; any life of the calm scenario is over by then


async def a_created_batch(cloud: AsyncLlamaCloud, *, files: int = 3) -> BatchCreateResponse:
    """A batch over a directory of its own, made as the official example makes it."""
    directory = await cloud.beta.directories.create(name="invoices", type="ephemeral")
    for nth in range(files):
        name = f"invoice-{nth}.pdf"
        await cloud.beta.directories.files.upload(directory.id, upload_file=(name, b"%PDF-"))
    job = {"type": "parse_v2", "configuration_id": "cfg-PARSE_AGENTIC"}
    return await cloud.batches.create(
        config={"job": job},  # type: ignore[typeddict-item]  # a dict is not yet a TypedDict
        source_directory_id=directory.id,
    )


async def test_a_batch_goes_from_local_files_to_results(
    cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """Directory, upload, batch, results, jobs: the whole way that the documentation shows."""
    created = await a_created_batch(cloud)
    assert ("PENDING", None, EPOCH) == (created.status, created.results, created.created_at)

    clock.advance(LONG_ENOUGH)
    batch = await cloud.batches.get(created.id, expand=["results"])
    assert ("COMPLETED", created.project_id) == (batch.status, batch.project_id)
    assert batch.results is not None

    files = [file async for file in cloud.beta.directories.files.list(batch.source_directory_id)]
    assert {f"invoice-{n}.pdf" for n in range(3)} == {file.display_name for file in files}
    assert {file.id for file in files} == {one.source_directory_file_id for one in batch.results}

    references = [one.job_reference for one in batch.results]
    job_ids = [reference.id for reference in references if reference is not None]
    jobs = [job async for job in cloud.parsing.list(job_ids=job_ids)]
    assert set(job_ids) == {job.id for job in jobs}
    assert {"COMPLETED"} == {job.status for job in jobs}
    assert "COMPLETED" == (await cloud.parsing.get(job_ids[0])).job.status


async def test_extract_jobs_are_looked_up_by_ids_and_flat(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """An extract job has its status at the top, a failed one says why."""
    failed = JobLife((Step("PENDING", 6), Step("RUNNING", 7), Step("FAILED", 9)), "unreadable")
    planted = sim.world.plant(
        a_life(*A_FULL_LIFE, files=(FileLife(6, job=failed),)), job_type="extract_v2"
    )
    clock.advance(30)

    batch = await cloud.batches.get(planted.id, expand=["results"])
    assert batch.results is not None
    assert batch.results[0].job_reference is not None
    job_id = batch.results[0].job_reference.id
    listed = [job async for job in cloud.extract.list(job_ids=[job_id])]

    assert [("FAILED", "unreadable")] == [(job.status, job.error_message) for job in listed]
    assert "FAILED" == (await cloud.extract.get(job_id)).status
    with pytest.raises(NotFoundError):
        await cloud.parsing.get(job_id)


async def test_results_are_null_until_the_end_and_unless_asked_for(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """Null is not empty: it says that there is nothing to be said yet."""
    planted = sim.world.plant(a_life(*A_FULL_LIFE), files=2)
    clock.advance(10)
    assert (await cloud.batches.get(planted.id, expand=["results"])).results is None

    clock.advance(10)
    assert (await cloud.batches.get(planted.id)).results is None
    assert len((await cloud.batches.get(planted.id, expand=["results"])).results or []) == 2


async def test_a_file_has_a_job_an_error_or_neither(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """COMPLETED promises none of the three."""
    job = JobLife((Step("PENDING", 6), Step("RUNNING", 8)))
    fates = (FileLife(6, job=job), FileLife(7, error_message="no such page"), FileLife(8))
    planted = sim.world.plant(a_life(*A_FULL_LIFE, files=fates))
    clock.advance(20)

    batch = await cloud.batches.get(planted.id, expand=["results"])

    assert [(True, None), (False, "no such page"), (False, None)] == [
        (one.job_reference is not None, one.error_message) for one in batch.results or []
    ]


async def test_a_list_is_cut_into_pages_and_whole(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """Newest first, each batch once, however many pages it takes."""
    made = []
    for _ in range(7):
        made.append(sim.world.plant(a_life(*A_FULL_LIFE)).id)
        clock.advance(1)

    assert made[::-1] == [batch.id async for batch in cloud.batches.list(page_size=3)]
    assert 3 == sim.requests["GET /api/v2/batches"]


async def test_a_window_includes_both_of_its_ends(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """What was created in that very microsecond is part of it."""
    made = []
    for _ in range(4):
        made.append(sim.world.plant(a_life(*A_FULL_LIFE)).id)
        clock.advance(1)

    window = cloud.batches.list(
        created_at_on_or_after=EPOCH + timedelta(seconds=1),
        created_at_on_or_before=EPOCH + timedelta(seconds=2),
    )

    assert [made[2], made[1]] == [batch.id async for batch in window]


async def test_a_list_is_filtered_by_status_and_directory(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """By the status of now, over several pages."""
    running = [sim.world.plant(a_life(*A_FULL_LIFE)) for _ in range(3)]
    done = sim.world.plant(a_life(("PENDING", 0), ("COMPLETED", 1)))
    clock.advance(6)

    listed = {batch.id async for batch in cloud.batches.list(status="RUNNING", page_size=2)}
    assert {batch.id for batch in running} == listed
    assert [done.id] == [batch.id async for batch in cloud.batches.list(status="COMPLETED")]
    of_directory = cloud.batches.list(source_directory_id=running[0].directory.id)
    assert [running[0].id] == [batch.id async for batch in of_directory]


async def test_a_cancelled_batch_stops_soon_and_keeps_what_is_finished(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """The call returns at once; jobs that are under way end with the batch."""
    done = JobLife((Step("PENDING", 5), Step("RUNNING", 5), Step("COMPLETED", 6)))
    under_way = JobLife((Step("PENDING", 6), Step("RUNNING", 7), Step("COMPLETED", 99)))
    fates = (FileLife(5, job=done), FileLife(6, job=under_way), FileLife(18))
    planted = sim.world.plant(a_life(*A_FULL_LIFE, files=fates, stopping=2.0))
    clock.advance(10)

    assert "RUNNING" == (await cloud.batches.cancel(planted.id)).status
    clock.advance(2)
    batch = await cloud.batches.get(planted.id, expand=["results"])
    references = [one.job_reference for one in batch.results or []]
    jobs = {job.id: job.status async for job in cloud.parsing.list()}

    assert "CANCELLED" == batch.status
    assert ["COMPLETED", "CANCELLED", None] == [one and jobs[one.id] for one in references]


async def test_a_batch_that_has_ended_cannot_be_cancelled(
    sim: Simulator, cloud: AsyncLlamaCloud, clock: ManualClock
) -> None:
    """And stays as it ended."""
    planted = sim.world.plant(a_life(*A_FULL_LIFE))
    clock.advance(20)

    with pytest.raises(ConflictError, match="COMPLETED"):
        await cloud.batches.cancel(planted.id)

    assert "COMPLETED" == (await cloud.batches.get(planted.id)).status


async def test_a_wrong_key_is_refused(sim: Simulator) -> None:
    """One of another region looks the same."""
    async with AsyncLlamaCloud(api_key="llx-wrong", base_url=sim.url) as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.batches.list()


async def test_another_project_is_refused(sim: Simulator, cloud: AsyncLlamaCloud) -> None:
    """A key is for one project, which need not be named."""
    await cloud.batches.list(project_id=sim.world.project.id)

    with pytest.raises(PermissionDeniedError):
        await cloud.batches.list(project_id="11111111-2222-3333-4444-555555555555")


async def test_unknown_ids_are_not_found(cloud: AsyncLlamaCloud) -> None:
    """Wherever an id can be named."""
    for ask in (cloud.batches.get, cloud.batches.cancel, cloud.beta.directories.get):
        with pytest.raises(NotFoundError):
            await ask("bat-11111111-2222-3333-4444-555555555555")
    assert [] == [job async for job in cloud.parsing.list(job_ids=["pjb-unknown"])]


async def test_too_large_a_page_is_refused(cloud: AsyncLlamaCloud) -> None:
    """With a body that names the parameter."""
    with pytest.raises(UnprocessableEntityError, match="page_size"):
        await cloud.batches.list(page_size=1_001)


async def test_a_name_is_taken_once(cloud: AsyncLlamaCloud) -> None:
    """The refusal is an object, with the id of what has the name."""
    first = await cloud.beta.directories.create(name="invoices")

    with pytest.raises(ConflictError) as refusal:
        await cloud.beta.directories.create(name="invoices")

    assert isinstance(refusal.value.body, dict)
    assert first.id == refusal.value.body["detail"]["directory_id"]


async def test_what_one_directory_holds_can_be_added_to_another(cloud: AsyncLlamaCloud) -> None:
    """By the id of what is stored, without another upload."""
    one = await cloud.beta.directories.create(name="one")
    other = await cloud.beta.directories.create(name="other")
    stored = await cloud.beta.directories.files.upload(
        one.id, upload_file=("a.pdf", b"%PDF-"), metadata='{"year": 2026}', unique_id="a"
    )
    assert stored.file_id is not None

    added = await cloud.beta.directories.files.add(other.id, file_id=stored.file_id)

    assert ("a.pdf", {"year": 2026}) == (added.display_name, stored.metadata)
    found = await cloud.beta.directories.files.get(added.id, directory_id=other.id)
    assert added.to_dict() == found.to_dict()
    listed = [directory.name async for directory in cloud.beta.directories.list(page_size=1)]
    assert {"one", "other"} == set(listed)


async def test_its_retries_bring_the_official_client_through_a_bad_moment(sim: Simulator) -> None:
    """429 with Retry-After, as the API's own client expects it."""
    sim.faults.switch_on(Switch(kind="429-retry-after", for_requests=2, seconds=0.01))

    async with AsyncLlamaCloud(api_key=sim.api_key, base_url=sim.url) as patient:
        assert [] == [batch async for batch in patient.batches.list()]
        sim.faults.switch_on(Switch(kind="429"))
        with pytest.raises(RateLimitError):
            await patient.with_options(max_retries=0).batches.list()
