"""Who may poll a watch: rights that end by themselves, and that are counted.

A replica that holds a watch renews its lease long before it ends. One that
dies does not, and another takes over. One that was only stopped for a while
wakes up and does not know it: so each holder has a larger token than the one
before, and whatever it writes for a watch is refused unless its token is
still the last one and its time not over. It is the database's time.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec
import sqlalchemy as sa

from batchwatch.domain.batch import WatchName
from batchwatch.log import get_logger
from batchwatch.store.engine import unbroken
from batchwatch.store.errors import LeaseLost, StoreError
from batchwatch.store.notices import Notices
from batchwatch.store.replicas import LIFE, Replicas
from batchwatch.store.schema import HEAD, leases, replicas

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from batchwatch.clock import Clock
    from batchwatch.store.engine import Database
    from batchwatch.store.notices import Notice

log = get_logger()

RENEWALS: Final = 3  # in the life of a lease
PROMPT: Final = 1.0  # seconds that an answer may take that tells what time it is
APART: Final = 5.0  # seconds; NTP keeps hosts within milliseconds
RETRY: Final = 1.0  # seconds until a store that failed is asked again
FORGOTTEN: Final = 20  # times the life of a lease without a sign of a replica
_NOTHING: Final[Mapping[WatchName, str]] = {}


class Leases(Replicas):
    """The rights of this replica, and what is known of the others."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        replica: str,
        life: timedelta = LIFE,
        host: str = "",
        version: str = "",
    ) -> None:
        """``host`` and ``version`` are for people who look at the replicas."""
        super().__init__(database, life=life)
        self._clock = clock
        self.replica = replica
        self.notices = Notices(database, clock)
        self.alive = 1  # replicas, when they were counted last
        self._is_apart = False  # the host's clock, from the database's
        self._beaten_at = -math.inf  # monotonic
        self.epoch = 0  # how often the others have begun to see us
        self._epoch_at = -math.inf  # monotonic, when they did the last time
        self._is_doubted = False
        self._doubts = asyncio.Event()
        self._started_at: datetime | None = None  # by the database's clock
        self._who = {"id": replica, "host": host, "version": version, "schema": HEAD}
        self._tokens: dict[WatchName, int] = {}  # of those that this replica holds
        self._held_until: dict[WatchName, float] = {}  # monotonic, and rather too early
        now, until = database.now(), database.now(ahead=life)
        upsert = database.insert(replicas)
        self._beat = upsert.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now})
        wanted = database.rows("watches", watch=sa.Text(), said=sa.Text()).c
        who = (sa.literal(replica), sa.literal(1), until, now)
        taking = database.insert(leases).from_select(
            ["watch", "holder", "token", "held_until", "taken_at", "said", "said_at"],
            sa.select(wanted.watch, *who, wanted.said, now).where(sa.true()),
        )
        same = (leases.c.holder == replica) & (leases.c.held_until > now)
        self._take = taking.on_conflict_do_update(
            index_elements=["watch"],
            set_={
                "holder": replica,
                "held_until": until,
                "token": sa.case((same, leases.c.token), else_=leases.c.token + 1),
                "taken_at": sa.case((same, leases.c.taken_at), else_=now),
                "said": taking.excluded.said,
                "said_at": now,
            },
            where=same | (leases.c.held_until <= now),
        ).returning(leases.c.watch, leases.c.token)

    @property
    def is_seen(self) -> bool:
        """Whether the others can still take this replica for alive.

        If not, they may have taken over whatever it had, and it must not go
        on with any of it.
        """
        return self._clock.monotonic() - self._beaten_at < self.life.total_seconds()

    @property
    def may_judge(self) -> bool:
        """Whether who shows no sign of life may be taken for dead by this replica.

        Not by one that was itself cut off just now: so may all have been, and
        the others only come back later.
        """
        back_for = self._clock.monotonic() - self._epoch_at
        return self.is_seen and (self.epoch == 1 or back_for >= self.life.total_seconds())

    @unbroken
    async def beat(self) -> int:
        """Say that this replica is alive; how many are, this one among them.

        Its steady clock goes by the database's from then on, as that of all.
        """
        database, now = self._database, self._database.now()
        begun = self._clock.monotonic()
        async with database.write(waits=False) as connection:
            since = now if self._started_at is None else self._started_at
            await connection.execute(self._beat.values(**self._who, started_at=since, seen_at=now))
            if self.may_judge:
                gone = replicas.c.seen_at < database.now(ahead=-FORGOTTEN * self.life)
                await connection.execute(sa.delete(replicas).where(gone))
            asked = self._clock.monotonic()
            shared = (await connection.execute(sa.select(now))).scalar_one()
            took = self._clock.monotonic() - asked
        if took <= PROMPT:  # else nobody knows when in between that was
            shared += timedelta(seconds=took / 2)
            self._clock.agree(shared)
            self._mind_the_host(shared)
            self._started_at = self._started_at or shared
        if not self.is_seen:
            self.epoch += 1
            self._epoch_at = begun
        self._beaten_at = begun
        self._is_doubted = False
        return await self.count()

    def _mind_the_host(self, shared: datetime) -> None:
        """Say once if the host's clock, which what is seen is dated by, is far from the others'."""
        apart = (self._clock.now() - shared).total_seconds()
        if abs(apart) > APART and not self._is_apart:
            log.warning("clock.apart", seconds=round(apart, 1), from_the_clock_of="the database")
        self._is_apart = abs(apart) > APART

    async def count(self) -> int:
        """How many replicas share the work now; at least this one."""
        alive = replicas.c.seen_at >= self._database.now(ahead=-self.life)
        here = sa.select(sa.func.count()).where(alive, replicas.c.leaving_at.is_(None))
        async with self._database.read() as connection:
            found = await connection.scalar(here)
        self.alive = max(1, found or 0, 0 if self.may_judge else self.alive)
        return self.alive

    async def free(self, watches: Collection[WatchName]) -> list[WatchName]:
        """Those of ``watches`` that nobody holds, in their order."""
        wanted = self._database.values("watches").c.value
        held = sa.exists().where(
            leases.c.watch == wanted, leases.c.held_until > self._database.now()
        )
        given = {"watches": msgspec.json.encode(list(watches)).decode()}
        async with self._database.read() as connection:
            found = set(await connection.scalars(sa.select(wanted).where(~held), given))
        return [one for one in watches if one in found]

    async def run(self, heard: Callable[[Notice | None], None]) -> None:
        """Be seen by the others, and hear of them, until cancelled; see :class:`Notices`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.notices.run(heard), name="notices")
            group.create_task(self._beat_on(), name="beat")

    async def _beat_on(self) -> None:
        pause = self.life.total_seconds() / RENEWALS
        failures = 0
        while True:
            if failures:
                await self._clock.sleep(min(pause, RETRY))
            else:
                await self._clock.wait(self._doubts, pause)
            self._doubts.clear()
            try:
                await self.beat()
            except StoreError as error:
                (log.debug if failures else log.warning)("replica.unseen", reason=str(error))
                failures += 1
            else:
                if failures:
                    log.info("replica.seen", failures=failures)
                failures = 0

    def holds(self, watch: WatchName) -> bool:
        """Whether, as far as is known, ``watch`` is ours alone and what it shows can be written.

        What upstream shows while nothing can be written may never be shown again.
        """
        is_held = self._clock.monotonic() < self._held_until.get(watch, -math.inf)
        return is_held and not self._is_doubted

    def check(self, watch: WatchName) -> None:
        """Raise LeaseLost unless this replica :meth:`holds` the watch."""
        if not self.holds(watch):
            raise LeaseLost(
                f"watch {watch}: the database takes nothing at present, or this replica was away "
                "for so long that another may hold it; nothing was asked"
            )

    def doubt(self) -> None:
        """The database did not take what was written: find out at once whether it does."""
        self._is_doubted = True
        self._doubts.set()

    @unbroken
    async def retire(self) -> None:
        """Poll nothing more: give all back, and be counted no longer; it is still seen."""
        self._forget(list(self._tokens))
        ours = self._order(leases.c.holder == self.replica)
        now = self._database.now()
        async with self._database.write(waits=False) as connection:
            leaving = sa.update(replicas).where(replicas.c.id == self.replica)
            await connection.execute(leaving.values(leaving_at=now))
            await connection.execute(ours)
            given_back = sa.update(leases).where(leases.c.holder == self.replica)
            await connection.execute(given_back.values(held_until=now))

    @unbroken
    async def leave(self) -> None:
        """Say that this replica ends: what it still had may be taken at once."""
        self._beaten_at = -math.inf
        async with self._database.write(waits=False) as connection:
            await connection.execute(sa.delete(replicas).where(replicas.c.id == self.replica))

    @unbroken
    async def take(
        self, watches: Collection[WatchName], said: Mapping[WatchName, str] = _NOTHING
    ) -> Mapping[WatchName, int]:
        """Take or renew the leases of ``watches``, where no other holds them; their tokens.

        A token that has changed says that another may have held the watch in
        between. What is not among them is lost. ``said`` of each, as JSON, is
        how it goes, for the others to read.
        """
        rows = [{"watch": watch, "said": said.get(watch)} for watch in sorted(watches)]
        given = {"watches": msgspec.json.encode(rows).decode()}
        until = self._clock.monotonic() + self.life.total_seconds()
        # Durable: a token that was forgotten would be given to somebody else once more.
        async with self._database.write(waits=False) as connection:
            found = await connection.execute(self._take, given)
            taken = {WatchName(row.watch): row.token for row in found}
        self._forget(watches)
        self._tokens.update(taken)
        self._held_until.update(dict.fromkeys(taken, until))
        return taken

    @unbroken
    async def give_back(self, watches: Collection[WatchName]) -> None:
        """End the leases of ``watches`` at once, so that another may take them."""
        self._forget(watches)
        ours = leases.c.watch.in_(watches) & (leases.c.holder == self.replica)
        async with self._database.write(waits=False) as connection:
            await connection.execute(self._order(ours))
            given_back = sa.update(leases).where(ours)
            await connection.execute(given_back.values(held_until=self._database.now()))

    @staticmethod
    def _order(some: sa.ColumnElement[bool]) -> sa.Select[tuple[str]]:
        """What locks these leases in one order, as `take` does: two never wait in a ring."""
        return sa.select(leases.c.watch).where(some).order_by(leases.c.watch).with_for_update()

    def _forget(self, watches: Collection[WatchName]) -> None:
        for watch in watches:
            self._tokens.pop(watch, None)
            self._held_until.pop(watch, None)

    async def guard(self, connection: AsyncConnection, watch: WatchName) -> None:
        """In a transaction for ``watch``: refuse it unless this replica holds the watch.

        Nobody else can take it until the transaction has ended. Raises LeaseLost.
        """
        token = self._tokens.get(watch)
        query = sa.select(leases.c.token).where(
            leases.c.watch == watch,
            leases.c.holder == self.replica,
            leases.c.token == token,
            leases.c.held_until > self._database.now(),
        )
        if token is None or await connection.scalar(query.with_for_update(read=True)) is None:
            raise LeaseLost(f"watch {watch}: another replica may hold it; nothing was written")
