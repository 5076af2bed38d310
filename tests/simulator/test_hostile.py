"""The hostile world can be lived in: a client that keeps a few rules learns the truth."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from batchwatch.simulator import SCENARIOS, Simulator
from batchwatch.simulator.history import history, seen
from tests.simulator.asking import BATCHES, a_client
from tests.support.clock import ManualClock

# Time stands still while an answer is under way, so none may take time.
HOSTILE = replace(
    SCENARIOS["hostile"],
    faults={k: v for k, v in SCENARIOS["hostile"].faults.items() if k != "latency"},
)


@dataclass
class PatientClient:
    """Tries again, never follows a token twice, never takes an older answer for news."""

    http: aiohttp.ClientSession
    known: dict[str, list[str]] = field(default_factory=dict)  # the statuses of each batch
    newest: dict[str, datetime] = field(default_factory=dict)

    async def ask(self, path: str, **params: Any) -> Any:
        """The JSON of the first answer that can be used."""
        while True:
            try:
                async with self.http.get(path, params=params) as answer:
                    if answer.status == 200:
                        return json.loads(await answer.read())  # .json() takes nothing for null
            except (aiohttp.ClientError, ValueError):
                continue

    async def poll(self) -> None:
        """Read the whole list and note what is new."""
        params: dict[str, Any] = {"page_size": 5}
        followed: set[str | None] = {None}
        while True:
            page = await self.ask(BATCHES, **params)
            for item in page["items"]:
                self._note(item)
            if page["next_page_token"] in followed:
                return
            params["page_token"] = page["next_page_token"]
            followed.add(page["next_page_token"])

    def _note(self, item: dict[str, Any]) -> None:
        statuses = self.known.setdefault(item["id"], [])
        if item["updated_at"] is None or item["status"] in statuses[-1:]:
            return
        updated = datetime.fromisoformat(item["updated_at"])
        if updated >= self.newest.get(item["id"], updated):
            self.newest[item["id"]] = updated
            statuses.append(item["status"])


def is_part_of(some: list[str], whole: list[str]) -> bool:
    """Whether all of some are in the whole, in this order."""
    rest = iter(whole)
    return all(one in rest for one in some)


@pytest.mark.parametrize("seed", range(3))
async def test_a_patient_client_learns_the_end_of_every_batch(seed: int) -> None:
    """In the right order, with nothing that did not happen."""
    clock = ManualClock()
    async with (
        Simulator(scenario=HOSTILE, seed=seed, clock=clock) as sim,
        a_client(sim) as http,
    ):
        client = PatientClient(http)
        for _ in range(60):
            await client.poll()
            clock.advance(0.5)
        for batch in history(sim.world):
            truth = [step["status"] for step in batch["history"]]
            known = client.known[batch["id"]]
            assert truth[-1] == known[-1]
            assert is_part_of(known, truth)
        for batch in seen(sim.world):
            assert is_part_of(client.known[batch["id"]], batch["statuses"])

        assert 24 == len(client.known)
        assert sim.faults.injected.keys() >= {"5xx", "reset", "stale", "looped", "repeated"}
