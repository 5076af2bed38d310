"""Documents say what the code does, or a test fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    THROTTLED,
    BatchId,
    EndpointName,
    FileOutcome,
    Results,
    Settling,
    Status,
)
from batchwatch.domain.coverage import Gap, Kind
from batchwatch.domain.event import (
    EVENT_TYPES,
    MEANINGS,
    WATCH_FAILING,
    Event,
    a_test_of,
    gap_event,
    heartbeat_event,
    watch_event,
)
from batchwatch.domain.expect import Past, expect
from batchwatch.domain.health import FAILING_TO_TELL, Record
from batchwatch.domain.jobs import JobRecorder, JobSeen
from batchwatch.domain.judging import MANY, Court, Docket
from batchwatch.domain.stuck import Patience
from batchwatch.metrics import Metrics
from batchwatch.settings import EVENT_TYPES as SETTINGS_EVENT_TYPES
from tests.support.builders import (
    BASE_URL,
    WATCH,
    a_batch,
    a_pulse,
    a_recorder,
    a_sighting,
    at,
)

ROOT = Path(__file__).parents[1]


def test_what_is_made_from_the_code_is_not_stale() -> None:
    """Settings, events, schemas, metrics, commands."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert "" == done.stdout + done.stderr


def test_the_settings_know_the_events_of_the_domain() -> None:
    """The settings may not import the domain, so they keep a list of their own."""
    assert EVENT_TYPES == SETTINGS_EVENT_TYPES
    assert list(EVENT_TYPES) == sorted(MEANINGS, key=EVENT_TYPES.index)


def events() -> list[Event]:
    """One event of each type that is made, from the rules that make them."""
    recorder = a_recorder()
    files = (FileOutcome("dfl-1", "parse_v2", "pjb-1"), FileOutcome("dfl-2", error_message="no"))
    made = []
    for status in ("PENDING", "THROTTLED", "RUNNING", "VALIDATING"):
        made += recorder.record({}, [a_sighting(Status(status))], now=at(0)).events
    for status, results in ((COMPLETED, files), (FAILED, None), (CANCELLED, ())):
        seen = a_sighting(status, updated=9, asked_results=True, results=results)
        made += recorder.record({seen.id: a_batch(RUNNING)}, [seen], now=at(9)).events
    open_ = a_batch(COMPLETED, results=Results.COMPLETE, settling=Settling.OPEN)
    jobs_rules = JobRecorder(
        WATCH, "https://llamacloud.test", deadline=timedelta(0), names={"dfl-2": "a"}
    )
    jobs = {"pjb-1": JobSeen("FAILED", "no pages")}
    made += jobs_rules.follow({open_.id: open_}, {open_.id: files}, jobs, over={}, now=at(9)).events
    lost = a_batch(RUNNING, misses=99, missed_at=at(-9_999), created_at=None, updated_at=None)
    made += recorder.vanish({lost.id: lost}, now=at(9)).events
    for type_ in (WATCH_FAILING, "watch.recovered"):
        made.append(watch_event(WATCH, type_, occurred_at=at(9), since=at(0), reason="HTTP 503"))
    made.append(gap_event(WATCH, Gap(at(0), at(9), Kind.UNREADABLE, "no id"), occurred_at=at(9)))
    made.append(heartbeat_event(a_pulse(), slot=at(0), store="", occurred_at=at(9)))
    made += stuck()
    record = Record(EndpointName("ops"), failing_since=at(0), failing_for=FAILING_TO_TELL)
    failing, told = record.failed("HTTP 500", after=1, now=at(9))
    for event in (told, failing.succeeded(now=at(9))[1], failing.disabled("410", now=at(9))[1]):
        assert event is not None
        made.append(event)
    made.append(a_test_of(record.name, now=at(9)))
    return made


def stuck() -> list[Event]:
    """One batch that is stuck and moves, and many at once."""
    expected = expect([Past(60.0)] * 9, files=None)
    rules: dict[str, Any] = {"expectation_of": lambda _: expected}
    court = Court(WATCH, BASE_URL, Patience(running=1.0), **rules)
    one = a_batch(RUNNING, judge_at=at(0))
    alone = court.judge({one.id: one}, Docket(), now=at(9)).changes
    moved = a_recorder(**rules).record(
        alone.batches, [a_sighting(THROTTLED, updated=10, seen_at=at(10))], now=at(10)
    )
    many = [a_batch(RUNNING, id=BatchId(f"bat-{n}"), judge_at=at(0)) for n in range(MANY)]
    together = court.judge({one.id: one for one in many}, Docket(), now=at(9)).changes
    return [*alone.events, *moved.events, *together.events]


def test_every_type_in_the_catalogue_is_made_and_no_other() -> None:
    """The catalogue promises neither too much nor too little."""
    assert set(MEANINGS) == {event.type for event in events()}


@pytest.mark.parametrize("type_", sorted(MEANINGS))
def test_real_messages_satisfy_the_published_schema(type_: str) -> None:
    """And carry no field that the schema does not name."""
    schema = json.loads((ROOT / "docs" / "schemas" / f"{type_}.json").read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for event in events():
        if event.type == type_:
            validator.validate(event.payload)
            (reference,) = schema["properties"]["data"].values()
            named = schema["$defs"][reference.rpartition("/")[2]]["properties"]
            assert set(named) == set(event.data)


def test_every_field_is_in_the_example() -> None:
    """Whoever reads the page sees the whole message once."""
    page = (ROOT / "docs" / "events.md").read_text()
    event = next(one for one in events() if one.type == "batch.completed")

    for field in [*event.data, *event.data["batch"], *event.data["results"]]:
        assert f'"{field}"' in page, field
    *_, settled = (one.data["settled"] for one in events() if one.type == "batch.settled")
    parts = (settled, settled["counts"], settled["failures"][0], settled["groups"][0])
    for field in {field for part in (*parts, settled["retry"]) for field in part}:
        assert f'"{field}"' in page, field


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_lead_somewhere(page: Path) -> None:
    """Between our own pages; the world outside is not ours to check."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_commands_in_the_readme_exist() -> None:
    """Each `batchwatch X` and each `make X`."""
    readme = "".join(re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    commands = set(re.findall(r"^batchwatch (\w+)", readme, re.MULTILINE))
    targets = set(re.findall(r"^make (\w+)", readme, re.MULTILINE))
    known = (ROOT / "docs" / "cli.md").read_text()
    makefile = (ROOT / "Makefile").read_text()

    assert {"check", "run", "ls", "show"} <= commands
    assert all(f"### `batchwatch {one}`" in known for one in commands)
    assert all(f"\n{one}:" in makefile for one in targets)


def test_the_invariants_name_tests_that_exist() -> None:
    """A guard that was renamed guards nothing that a reader can find."""
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in tests, name
    for path in re.findall(r"`(tests/[\w/.]+)`", page):
        assert (ROOT / path).exists(), path


def test_every_alert_goes_by_metrics_and_labels_that_there_are() -> None:
    """An alert over a metric that was renamed is silent for ever."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus-alerts.yaml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    known: dict[str, set[str]] = {}
    for collector in Metrics().collectors:
        (family,) = collector.describe()
        suffixes = {"counter": ("_total",), "histogram": ("_bucket",)}.get(family.type, ("",))
        labels = {*collector._labelnames, "le", "instance", "job"}  # noqa: SLF001  # nowhere else
        known |= {f"{family.name}{suffix}": labels for suffix in suffixes}

    for rule in alerts:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
        used = re.findall(r"batchwatch_\w+", rule["expr"])
        assert used
        assert set() == set(used) - known.keys()
        told = " ".join(rule["annotations"].values())
        for label in re.findall(r"\$labels\.(\w+)", told):
            assert all(label in known[one] for one in used)
    assert len(alerts) == len({rule["alert"] for rule in alerts})


def test_the_document_of_our_messages_is_valid() -> None:
    """By the schema of AsyncAPI 3.0 itself; each type is in it, with its published schema."""
    document = json.loads((ROOT / "docs" / "asyncapi.json").read_text())
    judge = json.loads((ROOT / "tests" / "data" / "asyncapi-3.0.0.json").read_text())

    Draft7Validator(judge).validate(document)
    broken = json.loads(json.dumps(document))
    broken["operations"]["tell"]["action"] = "shout"
    assert not Draft7Validator(judge).is_valid(broken)

    messages = document["components"]["messages"].values()
    assert {one["name"]: one["payload"]["schema"] for one in messages} == {
        type_: json.loads((ROOT / "docs" / "schemas" / f"{type_}.json").read_text())
        for type_ in MEANINGS
    }
