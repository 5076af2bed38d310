"""What is remembered of endpoints, when a daemon and a command write at once."""

from __future__ import annotations

from batchwatch.domain.health import FAILING_TO_DISABLE, Record
from tests.store.conftest import HOOK, Store
from tests.support.builders import at


async def test_a_record_comes_back_as_it_was_written(store: Store) -> None:
    """Every field."""
    record, event = Record(HOOK).failed("dns: no", after=0, now=at(1))
    record, event = record.failed("dns: no", after=FAILING_TO_DISABLE / 2, now=at(2))
    assert event is not None
    await store.endpoints.write(record, event)

    assert {HOOK: record} == await store.endpoints.records()


async def test_what_a_command_has_disabled_a_daemon_does_not_enable(store: Store) -> None:
    """It may have a failure to write before it learns of the command."""
    failing, _ = Record(HOOK).failed("dns: no", after=0, now=at(1))
    await store.endpoints.write(failing, None)
    disabled, _ = failing.disabled("by hand", now=at(2))
    await store.endpoints.write(disabled, None, nudge=True)

    again, _ = failing.failed("dns: no", after=60, now=at(3))
    await store.endpoints.write(again, None)
    await store.endpoints.write(Record(HOOK), None)

    assert {HOOK: disabled} == await store.endpoints.records()
    await store.endpoints.write(disabled.enabled(), None, nudge=True)
    assert {HOOK: disabled.enabled()} == await store.endpoints.records()
