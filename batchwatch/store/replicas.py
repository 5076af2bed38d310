"""Who shares the database, and who holds what: for whoever looks, a replica or a command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from batchwatch.domain.batch import WatchName
from batchwatch.store.schema import deliveries, leases, replicas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from batchwatch.store.engine import Database

LIFE: Final = timedelta(seconds=15)  # of a lease, and of a replica without a sign of it


@dataclass(frozen=True, slots=True)
class Holding:
    """A watch, and who holds it until when; its times are the database's."""

    watch: WatchName
    holder: str | None  # None: nobody, at present
    token: int
    held_until: datetime
    taken_at: datetime
    said: str | None  # JSON: how it goes, as its holder said it last
    said_at: datetime | None
    now: datetime  # when that was so


@dataclass(frozen=True, slots=True)
class Replica:
    """A daemon among those that share the database, or the only one."""

    id: str
    host: str
    version: str
    started_at: datetime
    seen_at: datetime
    is_alive: bool
    in_flight: int  # deliveries


@dataclass(frozen=True, slots=True)
class Fleet:
    """All of them, and what they hold; its times are the database's, ``now`` among them."""

    now: datetime
    replicas: Sequence[Replica]
    holdings: Mapping[WatchName, Holding]


class Replicas:
    """What is known of those that share the database."""

    def __init__(self, database: Database, *, life: timedelta = LIFE) -> None:
        self._database = database
        self.life = life

    @property
    def is_shared(self) -> bool:
        """Whether there can be more than one."""
        return self._database.is_shared

    async def holdings(self) -> list[Holding]:
        """Every watch that was ever held, and who holds it."""
        now = self._database.now()
        query = sa.select(leases, now.label("now")).order_by(leases.c.watch)
        async with self._database.read() as connection:
            return [
                Holding(
                    watch=WatchName(row.watch),
                    holder=row.holder if row.held_until > row.now else None,
                    token=row.token,
                    held_until=row.held_until,
                    taken_at=row.taken_at,
                    said=row.said,
                    said_at=row.said_at,
                    now=row.now,
                )
                for row in await connection.execute(query)
            ]

    async def fleet(self) -> Fleet:
        """Every replica that was seen lately, and every watch that was ever held."""
        in_flight = await self.in_flight()
        async with self._database.read() as connection:
            now = (await connection.execute(sa.select(self._database.now()))).scalar_one()
            rows = await connection.execute(sa.select(replicas).order_by(replicas.c.started_at))
        found = [
            Replica(
                id=row.id,
                host=row.host,
                version=row.version,
                started_at=row.started_at,
                seen_at=row.seen_at,
                is_alive=row.seen_at >= now - self.life,
                in_flight=in_flight.get(row.id, 0),
            )
            for row in rows
        ]
        return Fleet(now, found, {one.watch: one for one in await self.holdings()})

    async def in_flight(self) -> Mapping[str | None, int]:
        """How many deliveries each replica has in flight; the only daemon of a file is None."""
        query = (
            sa.select(deliveries.c.holder, sa.func.count().label("many"))
            .where(sa.text("state = 'in_flight'"))  # as its index has it
            .group_by(deliveries.c.holder)
        )
        async with self._database.read() as connection:
            return {row.holder: row.many for row in await connection.execute(query)}
