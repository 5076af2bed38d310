"""The budget: never more than allowed, the urgent first, and nobody forgotten."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchwatch.llamacloud.budget import FLOOR, PATIENCE, Budget, HeldBack, Priority
from tests.support.clock import ManualClock

SECOND, RATE = 1.0, 2.0


async def settle() -> None:
    """Let everybody run who can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Queue:
    """Askers, and the order in which they were served."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, name: str, priority: Priority = Priority.DISCOVER) -> asyncio.Task[None]:
        async def wait() -> None:
            await self.budget.acquire(priority)
            self.served.append(name)

        task = asyncio.create_task(wait())
        self.tasks.append(task)
        await settle()
        return task

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_a_burst_goes_at_once_and_then_the_rate_holds() -> None:
    """The bucket is full at first, and fills while nobody asks, but never above the burst."""
    clock = ManualClock()
    queue = Queue(Budget(rate=RATE, burst=3, clock=clock))
    for name in "abcde":
        await queue.ask(name)
    assert ["a", "b", "c"] == queue.served

    clock.advance(0.49)
    await settle()
    assert ["a", "b", "c"] == queue.served

    clock.advance(0.01)
    await settle()
    assert ["a", "b", "c", "d"] == queue.served

    clock.advance(3600)
    for name in "fghi":
        await queue.ask(name)
    assert list("abcdefg") == queue.served  # e, f, g: a burst of three, after whatever pause
    await queue.leave()


async def test_the_urgent_go_first_and_equals_in_their_order() -> None:
    """Discovery before completion before refresh before jobs, whoever waited longer."""
    clock = ManualClock()
    queue = Queue(Budget(rate=RATE, burst=1, clock=clock))
    await queue.ask("first")
    await queue.ask("job 1", Priority.SETTLE)
    await queue.ask("job 2", Priority.SETTLE)
    await queue.ask("refresh", Priority.REFRESH)
    await queue.ask("end", Priority.COMPLETE)
    await queue.ask("page", Priority.DISCOVER)
    for _ in range(5):
        clock.advance(0.5)
        await settle()

    assert ["first", "page", "end", "refresh", "job 1", "job 2"] == queue.served


async def test_whoever_is_cancelled_costs_nothing_and_holds_up_nobody() -> None:
    """First in the queue or in its middle: the token goes to the next."""
    clock = ManualClock()
    queue = Queue(Budget(rate=RATE, burst=1, clock=clock))
    await queue.ask("a")
    b, _, d, _ = [await queue.ask(name) for name in "bcde"]
    d.cancel()
    b.cancel()
    await settle()
    clock.advance(0.5)
    await settle()
    assert ["a", "c"] == queue.served

    clock.advance(0.5)
    await settle()
    assert ["a", "c", "e"] == queue.served


async def test_nobody_waits_in_a_loop() -> None:
    """The first in the queue sleeps until its token is due, the others until they are called."""
    clock = ManualClock()
    queue = Queue(Budget(rate=0.1, burst=1, clock=clock))
    for name in "abc":
        await queue.ask(name)

    assert 10.0 == await clock.next_sleeper()
    assert 1 == len(clock._sleepers)  # noqa: SLF001  # one keeps the time for all
    await queue.leave()


async def test_a_429_halves_the_rate_and_takes_what_was_saved() -> None:
    """A burst is what upstream has just refused."""
    clock = ManualClock()
    budget = Budget(rate=RATE, burst=10, clock=clock)
    budget.throttled()
    queue = Queue(budget)
    await queue.ask("a")
    assert (1.0, []) == (budget.rate, queue.served)

    clock.advance(1)
    await settle()
    assert ["a"] == queue.served


async def test_several_429s_at_once_are_one() -> None:
    """They answer requests that were sent before the first of them was read."""
    clock = ManualClock()
    budget = Budget(rate=8, burst=10, clock=clock)
    for _ in range(4):
        budget.throttled()
    assert 4 == budget.rate

    clock.advance(1)
    budget.throttled()
    assert 2 == budget.rate


async def test_the_rate_has_a_floor_and_comes_back_by_steps() -> None:
    """Slower than one request in half a minute would look like an outage."""
    clock = ManualClock()
    budget = Budget(rate=2, burst=1, clock=clock)
    for _ in range(20):
        clock.advance(1)
        budget.throttled()
    assert FLOOR == budget.rate

    budget.succeeded()
    assert FLOOR + 0.1 == budget.rate
    for _ in range(20):
        budget.succeeded()
    assert 2 == budget.rate


async def test_a_rate_below_the_floor_is_its_own_floor() -> None:
    """Somebody meant it."""
    clock = ManualClock()
    budget = Budget(rate=0.01, burst=1, clock=clock)
    clock.advance(1)
    budget.throttled()
    assert 0.01 == budget.rate


async def test_a_retry_after_blocks_everybody_and_then_lets_one_through() -> None:
    """One, to see how things are; the others at the new rate."""
    clock = ManualClock()
    budget = Budget(rate=RATE, burst=10, clock=clock)
    queue = Queue(budget)
    budget.throttled(30)
    for name in "abc":
        await queue.ask(name)
    clock.advance(29.9)
    await settle()
    assert [] == queue.served
    assert 0.1 == pytest.approx(budget.blocked_for)

    clock.advance(0.1)
    await settle()
    assert (["a"], 0.0) == (queue.served, budget.blocked_for)

    clock.advance(1)
    await settle()
    assert ["a", "b"] == queue.served
    await queue.leave()


async def test_a_shorter_retry_after_does_not_end_a_longer_one() -> None:
    """Both were asked for."""
    clock = ManualClock()
    budget = Budget(rate=RATE, burst=10, clock=clock)
    budget.throttled(30)
    budget.throttled(5)
    assert 30 == budget.blocked_for


async def test_a_long_retry_after_turns_everybody_away_who_waits() -> None:
    """Nobody hangs for an hour; each is told how long it is, and can do something else."""
    clock = ManualClock()
    budget = Budget(rate=RATE, burst=1, clock=clock)
    queue = Queue(budget)
    for name in "abc":
        await queue.ask(name)
    budget.throttled(600)
    await settle()

    told = await asyncio.gather(*queue.tasks, return_exceptions=True)
    assert ["a"] == queue.served
    assert [600.0, 600.0] == [one.seconds for one in told if isinstance(one, HeldBack)]

    clock.advance(600 - PATIENCE)
    await queue.ask("d")
    clock.advance(PATIENCE)
    await settle()
    assert ["a", "d"] == queue.served


async def test_a_success_wakes_whoever_sleeps_by_the_old_rate() -> None:
    """At the floor that would be half a minute, although the line is free again."""
    clock = ManualClock()
    budget = Budget(rate=10, burst=1, clock=clock)
    for _ in range(12):
        clock.advance(1)
        budget.throttled()
    queue = Queue(budget)
    await queue.ask("a")
    for _ in range(20):
        budget.succeeded()
    await settle()
    clock.advance(0.1)
    await settle()
    assert ["a"] == queue.served


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5), (float("nan"), 1)])
def test_a_budget_of_nothing_is_refused(rate: float, burst: float) -> None:
    """It would wait for ever."""
    with pytest.raises(ValueError, match="budget"):
        Budget(rate=rate, burst=burst, clock=ManualClock())


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(Priority)),
        st.tuples(st.just("advance"), st.floats(0.01, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("throttled"), st.none() | st.floats(0, 50)),
        st.tuples(st.just("succeeded"), st.none()),
    ),
    max_size=40,
)


async def story(
    actions: list[tuple[str, float | None]], rate: float, burst: int
) -> tuple[list[float], int, int]:
    """When each was served, how many asked, and how many of those were cancelled."""
    clock = ManualClock()
    budget = Budget(rate=rate, burst=burst, clock=clock)
    served: list[float] = []
    tasks: list[asyncio.Task[None]] = []

    async def wait(priority: Priority) -> None:
        await budget.acquire(priority)
        served.append(clock.monotonic())

    for action, value in actions:
        match action:
            case "ask":
                tasks.append(asyncio.create_task(wait(Priority(int(value or 0)))))
            case "advance":
                clock.advance(value or 0)
            case "cancel" if tasks:
                tasks[int(value or 0) % len(tasks)].cancel()
            case "throttled":
                budget.throttled(value)
            case _:
                budget.succeeded()
        await settle()
    while not all(task.done() for task in tasks):
        clock.advance(await clock.next_sleeper())
        await settle()
    return served, len(tasks), sum(task.cancelled() for task in tasks)


@given(actions=ACTIONS, rate=st.floats(0.1, 10), burst=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_no_window_has_too_many_and_nobody_is_forgotten(
    actions: list[tuple[str, float | None]], rate: float, burst: int
) -> None:
    """In any span of time at most burst + rate x span requests; and all who stay are served."""
    served, asked, cancelled = asyncio.run(story(actions, rate, burst))
    assert asked == len(served) + cancelled
    for (first, start), (last, end) in itertools.combinations(enumerate(served), 2):
        assert last - first + 1 <= burst + rate * (end - start) + 1e-6


def test_the_order_of_priorities_is_the_order_of_loss() -> None:
    """A batch that nobody discovers is lost; a job's status can wait."""
    shuffled = random.sample(list(Priority), k=4)
    expected = [Priority.DISCOVER, Priority.COMPLETE, Priority.REFRESH, Priority.SETTLE]
    assert expected == sorted(shuffled)


async def test_what_is_left_is_told_at_any_moment_and_costs_nothing() -> None:
    """For a gauge: it fills by itself, and while upstream wants a pause it is nothing."""
    clock = ManualClock()
    budget = Budget(rate=RATE, burst=3, clock=clock)
    told = [budget.left]
    for _ in range(3):
        await budget.acquire(Priority.DISCOVER)
    told.append(budget.left)
    clock.advance(0.5)
    told.append(budget.left)
    clock.advance(60)
    told.append(budget.left)
    budget.throttled(10.0)
    told.append(budget.left)
    clock.advance(10.0)
    told.append(budget.left)

    assert [3.0, 0.0, 1.0, 3.0, 0.0, 1.0] == told
    assert RATE / 2 == budget.rate
