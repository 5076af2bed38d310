"""The screen at every size, the same in lines, and the table at the end."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from rich.console import Console

from batchwatch.demo.evidence import Answer, Block, Receipt
from batchwatch.demo.look import ANSWERS, COLOURS, SIGNS, block_lines, colour, sign
from batchwatch.demo.plain import Plain
from batchwatch.demo.screen import Screen
from batchwatch.demo.summary import so_far, summary
from batchwatch.demo.verdict import Kind
from tests.demo.found import (
    a_life,
    a_post,
    a_receipt,
    a_scene,
    all_posts,
    all_receipts,
    judged,
)

if TYPE_CHECKING:
    from batchwatch.demo.evidence import Life
    from batchwatch.demo.scene import Scene
    from batchwatch.demo.verdict import Verdict

SIZES = [(80, 24), (140, 40), (60, 15), (100, 18), (250, 60), (40, 10), (20, 5), (10, 2)]


def a_busy_scene(batches: int = 30) -> Scene:
    """Batches in every status, webhooks, messages, repeats and a killed daemon."""
    scene = a_scene(chaos=True)
    lives: dict[str, Life] = {}
    for number in range(batches):
        statuses = ["PENDING", "VALIDATING", "THROTTLED", "RUNNING", "COMPLETED"]
        life = a_life(*statuses[: 1 + number % 5], batch_id=f"bat-{number:06x}-4712")
        lives[life.batch_id] = life
        for receipt in all_receipts(life):
            scene.receive(receipt)
        if life.is_over:
            scene.read(a_post(batch_id=life.batch_id))
    scene.learn(lives)
    scene.receive(a_receipt("PENDING", 1, batch_id="bat-000000-4712", answer=Answer.HUNG))
    scene.receive(Receipt(1.0, "evt-x", "", Answer.UNVERIFIED))
    scene.note("daemon killed", is_grave=True)
    scene.kills = 2
    return scene


def drawn(scene: Scene, width: int, height: int) -> list[str]:
    """The screen, line by line."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    view = Screen(scene, console)
    options = console.options.update(width=width, height=height)
    lines = console.render_lines(view, options, pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


def printed(view: Plain, file: io.StringIO) -> list[str]:
    view.refresh()
    return file.getvalue().splitlines()


def in_lines(scene: Scene) -> list[str]:
    """The scene as plain lines."""
    file = io.StringIO()
    return printed(Plain(scene, Console(file=file, width=80, color_system=None)), file)


def table(verdict: Verdict, *, kills: int = 0) -> str:
    """The table and what is below it."""
    file = io.StringIO()
    console = Console(file=file, width=80, color_system=None)
    for part in summary(verdict, kills=kills):
        console.print(part)
    return file.getvalue()


# --------------------------------------------------------------------------------- the screen


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_screen_fits_any_terminal(width: int, height: int) -> None:
    """A line too many would scroll, a cell too many would wrap: either ruins the picture."""
    lines = drawn(a_busy_scene(), width, height)

    assert len(lines) <= max(height, 4)
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40)])
def test_the_screen_fills_its_terminal_even_while_nothing_happens(width: int, height: int) -> None:
    """It does not jump when the first batch comes."""
    assert (
        height == len(drawn(a_scene(), width, height)) == len(drawn(a_busy_scene(), width, height))
    )


def test_the_screen_says_without_colours_what_it_says_with_them() -> None:
    """For NO_COLOR, and for eyes that tell few colours apart."""
    text = "\n".join(drawn(a_busy_scene(5), 80, 24))

    for said in ("pending", "throttled", "running", "completed", "validating", "✓", "not verified"):
        assert said in text


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_a_narrow_terminal_still_says_how_to_end_it(width: int) -> None:
    """What counts less gives way: repeats, the time, Slack."""
    *_, bottom = drawn(a_busy_scene(5), width, 24)

    assert bottom.rstrip().endswith("Ctrl-C ends")
    assert "1 of 5 over" in bottom
    assert "…" not in bottom


@pytest.mark.parametrize("width", [60, 80])
def test_every_sign_is_explained(width: int) -> None:
    """In a second line, if one is too short."""
    legend = " ".join(drawn(a_busy_scene(5), width, 24)[-3:-1])

    assert "…" not in legend
    assert all(f"{one} {name.lower()}" in legend for name, one in SIGNS.items())


def test_a_message_that_was_not_taken_has_arrived_nevertheless() -> None:
    """The number above it must not deny it."""
    scene = a_scene()
    scene.read(a_post(answer=Answer.HUNG))

    assert "Slack 1 arrived, 0 taken " in "\n".join(drawn(scene, 80, 24))


def test_a_demo_that_was_stopped_says_what_it_has_seen() -> None:
    """In one line, and that it has not been judged."""
    assert (
        " Stopped after 0.0 s: 1 of 5 batches over; 17 webhooks, 1 of them not verified; "
        "1 Slack message. Nothing was judged."
    ) == so_far(a_busy_scene(5)).plain


def test_a_batch_is_drawn_as_the_line_of_its_life() -> None:
    """One sign for each status it had, as long as it lasted."""
    scene = a_scene()
    life = a_life("PENDING", "PENDING", "RUNNING", "RUNNING", "THROTTLED", "RUNNING", "COMPLETED")
    scene.learn({life.batch_id: life})

    [row] = [line for line in drawn(scene, 80, 24)[:-1] if line.startswith(" 1 ")]

    assert "··━━╌━● " in row
    assert "completed" in row
    assert "6.0 s" in row


def test_batches_that_still_move_are_shown_before_those_that_are_over() -> None:
    """If there is no room for all of them."""
    scene = a_scene()
    over = [a_life("PENDING", "COMPLETED", batch_id=f"bat-0{n}") for n in range(30)]
    moving = [a_life("PENDING", batch_id=f"bat-1{n}") for n in range(5)]
    scene.learn({life.batch_id: life for life in (*over, *moving)})

    text = "\n".join(drawn(scene, 80, 24))

    assert all(f" 1{n} " in text for n in range(5))


@pytest.mark.parametrize("sign_", [*SIGNS.values(), sign("VALIDATING")])
def test_a_sign_is_one_cell_wide(sign_: str) -> None:
    """Or lifelines would not be as long as lives."""
    assert 1 == cell_len(sign_)


def test_signs_and_colours_know_the_same_statuses() -> None:
    """Those that upstream documents; others have a sign and a colour for all of them."""
    assert COLOURS.keys() == SIGNS.keys()
    assert ("?", "blue") == (sign("VALIDATING"), colour("VALIDATING"))


def test_slacks_markup_is_shown_and_not_printed() -> None:
    """Bold, code, and the three characters that Slack wants escaped."""
    [line] = block_lines(Block("section", "*bat-1* is `a&lt;b` &amp;lt;"))

    assert "bat-1 is a<b &lt;" == line.plain
    assert ["bold", "italic"] == [span.style for span in line.spans]


def test_signs_of_unclear_width_lose_their_coloured_form() -> None:
    """Terminals disagree on how wide that is."""
    [line] = block_lines(Block("header", "\N{WARNING SIGN}\N{VARIATION SELECTOR-16} Batch"))

    assert "\N{WARNING SIGN} Batch" == line.plain


# ---------------------------------------------------------------------------------- the lines


def test_lines_tell_of_everything_once() -> None:
    """What truly happened, what arrived, and what the demo did."""
    scene = a_scene()
    scene.learn({"bat-1": a_life("PENDING")})
    scene.receive(a_receipt("PENDING", 1))
    scene.note("daemon is back")
    file = io.StringIO()
    view = Plain(scene, Console(file=file, width=80, color_system=None))

    assert [
        "  0.0 s  batch    1  PENDING",
        "  1.0 s  webhook  1  #1 batch.pending  verified",
        "  0.0 s  demo     daemon is back",
    ] == printed(view, file)
    assert 3 == len(printed(view, file))


def test_lines_show_a_message_block_by_block() -> None:
    """Below its first line, as a person would read it."""
    scene = a_scene()
    scene.read(a_post())

    assert [
        "  1.0 s  slack    ✅ Batch completed",
        "                  bat-1",
        "                  RUNNING → COMPLETED, 6.5 s after it was first seen",
        "                  watch demo · parse_v2",
    ] == in_lines(scene)


def test_lines_say_what_the_receiver_did_wrong() -> None:
    """So that the repeat is no riddle."""
    scene = a_scene()
    scene.receive(a_receipt("RUNNING", 2, answer=Answer.REFUSED))
    scene.receive(Receipt(1.0, "evt-x", "", Answer.UNVERIFIED))

    refused, forged = in_lines(scene)

    assert refused.endswith(f"verified  {ANSWERS[Answer.REFUSED]}")
    assert forged.endswith("evt-x  the signature does not hold")


# ---------------------------------------------------------------------------------- the table


def test_the_table_of_a_good_run_says_so() -> None:
    """And shows what was counted."""
    life = a_life("PENDING", "RUNNING", "COMPLETED")

    text = table(judged([life], all_receipts(life)))

    assert "Nothing lost, all in order, every signature verified." in text
    assert ["Transitions", "in", "truth", "3"] == text.splitlines()[2].split()[:4]
    assert "killed" not in text


def test_the_table_names_every_kind_of_fault_and_its_count() -> None:
    """A row each, zero or not."""
    life = a_life("PENDING", "RUNNING", "COMPLETED")
    first, second, third = all_receipts(life)

    text = table(judged([life], [second, first, third, replace(third, event_id="evt-2")]))

    for row, kind in zip("01010", Kind, strict=True):
        assert re.search(rf"^ {kind.value.capitalize()} +{row} ", text, re.MULTILINE)
    assert "✗ 2 faults:" in text
    assert "✗ out of order: transition 1 of 1 came after 2" in text


def test_many_faults_are_counted_and_not_all_told() -> None:
    """The first ones are enough to start with."""
    lives = [a_life("COMPLETED", batch_id=f"bat-{number}") for number in range(20)]

    text = table(judged(lives, [], all_posts(lives)))

    assert "✗ 20 faults:" in text
    assert "… and 8 more" in text


def test_a_run_in_which_nothing_happened_proves_nothing() -> None:
    """And must not look as if it did."""
    assert "nothing is proven" in table(judged([], []))


def test_the_table_of_a_chaotic_run_tells_of_the_kills() -> None:
    """With what the daemon died over."""
    life = a_life("PENDING", "RUNNING", "COMPLETED")
    told = [a_receipt("PENDING", 1), a_receipt("COMPLETED", 2)]

    text = table(judged([life], told, may_miss=True), kills=4)

    assert "Daemon killed" in text
    assert "shown in passing" in text
    assert "Nothing lost" in text
