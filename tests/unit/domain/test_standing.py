"""When waiting for a batch is over, and how it has ended then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchwatch.domain.batch import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    BatchId,
    Results,
    Settling,
)
from batchwatch.domain.settle import Fate
from batchwatch.domain.standing import Ending, Standing

ENDED = Standing("w", BatchId("bat-1"), COMPLETED, Results.COMPLETE, None, vanished=False, fates={})
OPEN = replace(ENDED, settling=Settling.OPEN, fates={None: 1, Fate.SUCCEEDED: 1})


@pytest.mark.parametrize(
    ("standing", "ending", "when_settled"),
    [
        (replace(ENDED, status=RUNNING, results=None), Ending.UNFINISHED, Ending.UNFINISHED),
        (replace(ENDED, results=Results.AWAITED), Ending.UNFINISHED, Ending.UNFINISHED),
        (replace(ENDED, results=Results.PENDING), Ending.UNFINISHED, Ending.UNFINISHED),
        (replace(ENDED, results=None), Ending.UNFINISHED, Ending.UNFINISHED),
        (OPEN, Ending.SUCCEEDED, Ending.UNFINISHED),
        (replace(OPEN, settling=Settling.SETTLED), Ending.SUCCEEDED, Ending.SUCCEEDED),
        (replace(OPEN, fates={None: 1, Fate.UNMAPPED: 1}), Ending.SOME_FAILED, Ending.UNFINISHED),
        (replace(ENDED, fates={Fate.UNKNOWN: 1}), Ending.UNKNOWN, Ending.UNKNOWN),
        (replace(ENDED, results=Results.GIVEN_UP), Ending.UNKNOWN, Ending.UNKNOWN),
        (replace(ENDED, status=FAILED, results=Results.NONE), Ending.FAILED, Ending.FAILED),
        (replace(OPEN, status=CANCELLED), Ending.CANCELLED, Ending.UNFINISHED),
        (replace(OPEN, status=RUNNING, vanished=True), Ending.VANISHED, Ending.VANISHED),
    ],
)
def test_how_it_ended_is_known_when_it_is_over(
    standing: Standing, ending: Ending, when_settled: Ending
) -> None:
    """Its files as far as was waited for, and no end is told of what goes on."""
    assert (ending, when_settled) == (
        standing.ending(settled=False),
        standing.ending(settled=True),
    )
    assert (ending is not Ending.UNFINISHED) is standing.is_over(settled=False)
    assert (when_settled is not Ending.UNFINISHED) is standing.is_over(settled=True)


def test_what_was_over_before_the_first_look_is_followed_by_nobody() -> None:
    """A daemon has no reason to ask for it, so whoever waits must."""
    assert not replace(ENDED, results=None).is_followed
    assert replace(ENDED, results=Results.AWAITED).is_followed
    assert replace(ENDED, status=RUNNING, results=None).is_followed
