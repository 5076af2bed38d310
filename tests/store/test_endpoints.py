"""What is remembered of endpoints, when a daemon and a command write at once."""

from __future__ import annotations

from batchwatch.domain.health import FAILING_TO_DISABLE, Record
from tests.store.conftest import HOOK, Store
from tests.support.builders import at

WELL = Record(HOOK)


async def test_a_record_comes_back_as_it_was_written(store: Store) -> None:
    """Every field."""
    record, event = Record(HOOK).failed("dns: no", after=0, now=at(1))
    record, event = record.failed("dns: no", after=FAILING_TO_DISABLE / 2, now=at(2))
    assert event is not None
    await store.endpoints.keep(record, [event], base=WELL, now=at(2))

    assert {HOOK: record} == await store.endpoints.records()


async def test_what_a_command_has_disabled_a_daemon_does_not_enable(store: Store) -> None:
    """It may have a failure to write before it learns of the command."""
    failing, _ = Record(HOOK).failed("dns: no", after=0, now=at(1))
    await store.endpoints.keep(failing, [], base=WELL, now=at(1))
    assert await store.endpoints.change(HOOK, lambda record: record.disabled("by hand", now=at(2)))
    disabled, _ = failing.disabled("by hand", now=at(2))

    again, _ = failing.failed("dns: no", after=60, now=at(3))
    for record in (again, WELL):
        assert disabled == await store.endpoints.keep(record, [], base=failing, now=at(3))

    assert {HOOK: disabled} == await store.endpoints.records()
    assert await store.endpoints.change(HOOK, lambda record: (record.enabled(), None))
    assert {HOOK: disabled.enabled()} == await store.endpoints.records()
