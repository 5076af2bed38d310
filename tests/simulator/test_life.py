"""Lives: planned at birth, the same for a seed, and never changed in their past."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from batchwatch.simulator import SCENARIOS, Nature, a_life
from batchwatch.simulator.life import TERMINAL, Life, plan_life

DOCUMENTED_WAYS = {
    ("PENDING", "THROTTLED"),
    ("PENDING", "RUNNING"),
    ("THROTTLED", "RUNNING"),
    ("RUNNING", "THROTTLED"),
    ("RUNNING", "COMPLETED"),
    ("RUNNING", "FAILED"),
    ("RUNNING", "CANCELLED"),
}

natures = st.sampled_from([scenario.nature for scenario in SCENARIOS.values()])
seeds = st.integers(0, 10_000)
moments = st.floats(0, 60)


def fates(life: Life, seed: int) -> list[object]:
    """What becomes of the first twenty files."""
    return [life.file(nth, Random(f"{seed}/{nth}")) for nth in range(20)]


@given(natures, seeds)
def test_a_life_goes_forward_through_the_documented_statuses(nature: Nature, seed: int) -> None:
    """It begins with PENDING, ends once if at all, and takes no way that is not known."""
    steps = [s for s in plan_life(Random(seed), nature).steps if s.status != "VALIDATING"]
    statuses = [step.status for step in steps]

    assert ("PENDING", 0.0) == steps[0]
    assert sorted(step.after for step in steps) == [step.after for step in steps]
    assert set(pairwise(statuses)) <= DOCUMENTED_WAYS
    assert TERMINAL.isdisjoint(statuses[:-1])


@given(natures, seeds)
def test_every_file_is_mapped_when_a_batch_completes(nature: Nature, seed: int) -> None:
    """That is what COMPLETED means; their jobs may run on."""
    life = plan_life(Random(seed), nature)
    if life.steps[-1].status == "COMPLETED":
        mapped = [life.file(nth, Random(nth)).mapped_after for nth in range(20)]
        assert max(mapped) <= life.steps[-1].after


@given(natures, seeds)
def test_a_seed_tells_everything(nature: Nature, seed: int) -> None:
    """Lives and fates alike."""
    once, again = (plan_life(Random(seed), nature) for _ in range(2))

    assert once == again
    assert fates(once, seed) == fates(again, seed)


@given(natures, seeds, moments)
def test_a_cancel_leaves_the_past_as_it_was(nature: Nature, seed: int, called: float) -> None:
    """And what comes after is CANCELLED, or an end that was due before the batch could stop."""
    life = plan_life(Random(seed), nature)
    cancelled = life.cancelled(called)
    stopped = called + life.stopping

    assert [s for s in life.steps if s.after < stopped] == [
        s for s in cancelled.steps if s.after < stopped
    ]
    assert cancelled.steps[-1].status in TERMINAL
    assert cancelled.steps[-1].after <= stopped


@given(seeds, moments)
def test_files_that_are_finished_keep_their_jobs_through_a_cancel(seed: int, called: float) -> None:
    """Those under way end with the batch, those not yet mapped have neither job nor error."""
    life = a_life(("PENDING", 0), ("RUNNING", 5), ("COMPLETED", 70))
    cancelled = life.cancelled(called)

    for nth in range(20):
        before, after = (one.file(nth, Random(f"{seed}/{nth}")) for one in (life, cancelled))
        assert before.job is not None
        if before.mapped_after > called + life.stopping:
            assert (math.inf, None, None) == (after.mapped_after, after.job, after.error_message)
        elif before.job.steps[-1].after < called + life.stopping:
            assert before == after
        else:
            assert after.job is not None
            assert ("CANCELLED", called + life.stopping) == after.job.steps[-1]


def test_the_scenarios_keep_what_they_promise() -> None:
    """Within a hundred lives there is each end that the scenario speaks of."""

    def ends(name: str) -> set[str]:
        nature = SCENARIOS[name].nature
        return {plan_life(Random(seed), nature).steps[-1].status for seed in range(100)}

    assert {"COMPLETED"} == ends("calm")
    assert {"COMPLETED", "FAILED", "CANCELLED"} == ends("lively")
    assert {"COMPLETED", "FAILED", "CANCELLED"} == ends("hostile")
    assert {"PENDING", "RUNNING", "COMPLETED"} == ends("stuck")


@given(st.sampled_from(["lively", "outage", "free-tier", "hostile"]), seeds)
def test_a_demo_is_over_within_half_a_minute(name: str, seed: int) -> None:
    """Every batch of its scenarios is born, ends and settles in that time, with room to spare."""
    scenario = SCENARIOS[name]
    life = plan_life(Random(seed), scenario.nature)
    jobs = (life.file(nth, Random(nth)).job for nth in range(6))
    ends = [life.steps[-1].after + life.results_late]
    ends += [job.steps[-1].after for job in jobs if job is not None]

    assert life.steps[-1].status in TERMINAL
    assert scenario.over + max(ends) < 28


def test_the_faults_of_a_scenario_leave_most_answers_whole() -> None:
    """Below three in ten, so that a client that tries again gets through."""
    breaking = {"429", "429-retry-after", "5xx", "html", "reset", "truncated", "invalid-json"}
    for scenario in SCENARIOS.values():
        assert 0.3 > sum(scenario.faults.get(kind, 0) for kind in breaking)
