"""The page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Browser

from ai_response_logging.report import Report, report

from .conftest import call, run_of

PageOf = Callable[..., tuple[Path, Report]]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

OVERRIDE, ISOLATE, ZERO_WIDTH, TAG = "\u202e", "\u2067", "\u200b", "\U000e0041"
ATTACKS = {
    "script": "</script><script>window.attacked = 1</script>",
    "data block": '"}]}</script><!--<script>',
    "comment": "<!-- --><img src=x onerror='window.attacked = 2'>",
    "attribute": "\" onmouseover='window.attacked = 3' x=\"",
    "style": "</style><style>body { display: none }</style>",
    "link": "javascript:window.attacked=4",
    "remote": "<img src='https://attacker.invalid/x.png'><link rel=stylesheet href='//attacker.invalid/x.css'>",
    "template": "{{data}} {{script}} ${window.attacked=5} {a|text} {b} <%= 1 %>",
    "entity": "&lt;b&gt; &#x3c;b&#x3e; &amp;",
    "prototype": "__proto__",
    "bidi": f"user{OVERRIDE}txt.exe{ISOLATE}{ZERO_WIDTH}{TAG}",
    "control": "a\x00b\x1bc\u2028d\u2029e\x85",
    "half emoji": "a\ud83db",
    "svg": "<svg/onload=window.attacked=6>",
    "title": "</title><script>window.attacked = 8</script>",
    "frame": "<iframe srcdoc='<script>parent.attacked=7</script>'></iframe>",
}
FIELDS = (
    "platform", "model", "question", "response", "system", "error_type", "error_message", "error_class", "brand",
    "execution_id", "record_id", "response_model", "stream_end",
)  # fmt: skip

NEXT_PICTURE = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
FOREIGN = "img, iframe, link, object, embed, form, a[href^='j'], [onerror], [onmouseover], [onload]"


def test_a_page_opens_offline_without_a_complaint(browser: Browser, page_of: PageOf) -> None:
    """
    It asks for nothing but itself, and says nothing on its console, also while it is used.
    """
    page, _ = page_of([*run_of(3, 3), call(100, success=False, error_type="timeout", response="")])

    browser.open(page)
    browser.run("document.querySelector('#theme').click()")
    browser.pdf()

    assert browser.console == []
    assert browser.requests == [page.as_uri()]
    assert browser.texts("h1") == ["AI responses: ai_responses.jsonl"]
    assert browser.run("document.querySelectorAll('.chart svg').length") == 2


def test_a_cell_shows_its_text(browser: Browser, page_of: PageOf) -> None:
    """
    A click on a cell of the matrix opens the answer of this question by this model.
    """
    page, _ = page_of(
        [one | {"response": f"the answer to {one['question']} by {one['model']}"} for one in run_of(3, 4)]
    )

    browser.open(page)
    browser.run("document.querySelector('#matrix tbody tr:nth-child(2) td:nth-child(4) button').click()")

    assert browser.run("document.querySelector('#call').open") is True
    assert browser.texts("#call .text") == ["question 2", "the answer to question 2 by model-2"]


def test_the_matrix_tells_failed_and_missing_cells(browser: Browser, page_of: PageOf) -> None:
    """
    Each cell says what it is, to the eye and to a screen reader; a missing one opens with a reason.
    """
    records = run_of(2, 2)
    records[1] |= {"success": False, "error_type": "timeout"}
    page, _ = page_of(records[:3])

    browser.open(page)
    browser.run("document.querySelector('#matrix button.missing').click()")

    labels = "Array.from(document.querySelectorAll('#matrix button'), (one) => one.getAttribute('aria-label'))"
    assert browser.run(labels) == [
        "question 1, model-0: done", "question 1, model-1: failed", "question 2, model-0: done",
        "question 2, model-1: missing",
    ]  # fmt: skip
    assert "no answer" in browser.texts("#call-body p")[0]


def test_a_matrix_is_used_with_keys_alone(browser: Browser, page_of: PageOf) -> None:
    """
    Arrows move from cell to cell, Enter opens one, Escape closes it and the focus is where it was.
    """
    page, _ = page_of(run_of(3, 3))
    focus = "document.activeElement.getAttribute('aria-label')"

    browser.open(page)
    browser.run("document.querySelector('#matrix button[tabindex=\"0\"]').focus()")
    assert browser.run("document.querySelectorAll('#matrix button[tabindex=\"0\"]').length") == 1
    browser.press("ArrowDown", 40)
    browser.press("ArrowRight", 39)
    assert browser.run(focus) == "question 2, model-1: done"
    browser.press("Enter", 13)
    assert browser.texts("#call .text")[0] == "question 2"
    browser.press("Escape", 27)

    assert browser.run("document.querySelector('#call').open") is False
    assert browser.run(focus) == "question 2, model-1: done"


def test_search_finds_what_an_answer_says(browser: Browser, page_of: PageOf) -> None:
    """
    Any text of a call is found, whatever its case, in Chinese as well; what was found is marked.
    """
    page, _ = page_of(
        [
            call(1, system="a secret recipe"),
            call(2, response="推荐华为手机，拍照好"),
            call(3, success=False, error_message="Quota EXCEEDED"),
        ]
    )
    search = (
        "(document.querySelector('#kind').value = 'all', document.querySelector('#search').value = {},"
        " document.querySelector('#search').dispatchEvent(new Event('input')))"
    )

    browser.open(page)
    assert browser.texts("#list .answer") == ["Quota EXCEEDED"]
    browser.run(search.format(json.dumps("华为")))
    assert browser.texts("#list mark") == ["华为"]
    assert browser.texts("#found") == ["1 call found"]
    browser.run(search.format(json.dumps("quota exceeded")))
    assert browser.texts("#list mark") == ["Quota EXCEEDED"]
    browser.run(search.format(json.dumps("secret recipe")))
    assert browser.texts("#list mark") == ["secret recipe"]
    browser.run(search.format(json.dumps("nowhere to be found")))

    assert browser.texts("#list li") == []


def test_a_name_never_marks_up_a_chart(browser: Browser, page_of: PageOf) -> None:
    """
    What ECharts takes as markup in labels and tooltips is shown as it was logged, with wide braces.
    """
    page, _ = page_of([call(1, model="{p|shown} {b} {c}")])

    browser.open(page)
    tip = "echarts.getInstanceByDom(document.querySelector('#latency-chart'))"
    browser.run(f"{tip}.dispatchAction({{type: 'showTip', seriesIndex: 2, dataIndex: 0}})")
    drawn = browser.run(NEXT_PICTURE + ".then(() => document.querySelector('#latency-chart').textContent)")

    assert drawn.count("local · ｛p|shown｝ ｛b｝ ｛c｝") == 2


def test_a_kind_of_error_leads_to_its_calls(browser: Browser, page_of: PageOf) -> None:
    """
    The table of errors counts each kind, and a click on one lists the calls that failed so.
    """
    kinds = ["timeout", "timeout", "auth"]
    page, _ = page_of([call(n, success=False, error_type=kind, response="") for n, kind in enumerate(kinds)])

    browser.open(page)
    assert [row.split()[0] for row in browser.texts("#errors-table tbody th")] == ["timeout", "auth"]
    browser.run("document.querySelector('#errors-table button').click()")

    assert browser.texts("#found") == ["2 failed calls found"]


def test_colours_follow_the_system_and_the_switch(browser: Browser, page_of: PageOf) -> None:
    """
    The page is dark where the system is; the switch overrules it, and charts go along.
    """
    page, _ = page_of([call(1)])
    paper = "getComputedStyle(document.querySelector('section')).backgroundColor"
    ink = "document.querySelector('#latency-chart text').getAttribute('fill')"

    browser.open(page)
    light = browser.run(f"[{paper}, {ink}]")
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(page)
    dark = browser.run(f"[{paper}, {ink}]")
    browser.run("document.querySelector('#theme').click()")

    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert browser.run(f"[{paper}, {ink}]") == light


def test_paper_is_light_and_whole(browser: Browser, page_of: PageOf) -> None:
    """
    Printed from a dark screen the page is light, and charts are as wide as the paper; the screen is dark again after.
    """
    page, _ = page_of(run_of(2, 2))
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(page)
    state = (
        "[getComputedStyle(document.querySelector('section')).backgroundColor,"
        " document.querySelector('#time-chart svg').getAttribute('width')]"
    )
    dark = browser.run(state)

    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(state) == ["rgb(255, 255, 255)", "680"]
    browser.run("dispatchEvent(new Event('afterprint'))")

    assert browser.run(state) == dark
    assert browser.pdf().startswith(b"%PDF")


def test_a_wide_matrix_is_whole_on_paper(browser: Browser, page_of: PageOf) -> None:
    """
    Nothing scrolls on paper: fifty models fit on its width.
    """
    page, _ = page_of(run_of(2, 50))

    browser.ask("Emulation.setDeviceMetricsOverride", width=680, height=900, deviceScaleFactor=1, mobile=False)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    browser.open(page)
    right = browser.run("document.querySelector('#matrix tbody td:last-child button').getBoundingClientRect().right")
    browser.ask("Emulation.clearDeviceMetricsOverride")

    assert right <= 680


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_hostile_text_is_text_wherever_it_stands(browser: Browser, page_of: PageOf, attack: str) -> None:
    """
    In no field does it run, fetch, hide or turn anything; unseen characters are read as codes.
    """
    hostile: dict[str, Any] = dict.fromkeys(FIELDS, attack)
    records = [
        call(1, **hostile, tool_calls=[{attack: attack}], question_index=1, total_questions=2, success=False),
        call(2, **hostile | {"record_id": "r2"}, question_index=2, total_questions=2, success=True),
        call(3, **hostile | {"record_id": "r3", "execution_id": attack + "2"}, success=False),
    ]
    page, _ = page_of(records, title=attack)

    browser.open(page)
    browser.run("document.querySelector('#matrix button').click()")
    text = browser.texts("#call .text")[0]
    # A chart's tooltip has names in it, too.
    tip = "echarts.getInstanceByDom(document.querySelector('#latency-chart'))"
    browser.run(f"{tip}.dispatchAction({{type: 'showTip', seriesIndex: 2, dataIndex: 0}})")
    tips = browser.run(NEXT_PICTURE + ".then(() => document.querySelector('#latency-chart').textContent)")
    browser.run("searchFor(DATA.errors[0].error_type)")

    assert browser.console == []
    assert browser.requests == [page.as_uri()]
    assert browser.run("window.attacked") is None
    assert browser.run(f"document.querySelectorAll({json.dumps(FOREIGN)}).length") == 0
    assert browser.run("document.querySelectorAll('script').length") == 3
    assert browser.run("getComputedStyle(document.body).display") == "block"
    assert "3 calls" in tips
    assert text == seen(attack)
    assert browser.run("getComputedStyle(document.querySelector('#call bdi')).unicodeBidi") == "isolate"
    assert not set(browser.run("document.body.innerText")) & {OVERRIDE, ISOLATE, ZERO_WIDTH, TAG, "\x1b", "\x85"}


def seen(text: str) -> str:
    """Return *text* as the page shows it: what nobody sees as its code."""
    unseen = {OVERRIDE, ISOLATE, ZERO_WIDTH, TAG, "\x00", "\x1b", "\x85", "\u2028", "\u2029", "\ud83d"}
    return "".join(f"U+{ord(char):04X}" if char in unseen else char for char in text)


def test_no_markup_gets_in_even_by_a_slip(browser: Browser, page_of: PageOf) -> None:
    """
    If some script of the page took a text as HTML one day, the browser would refuse: nothing but an empty text passes.
    """
    page, _ = page_of([call(1)])

    browser.open(page)
    slip = "try { document.body.innerHTML = '<b>text</b>'; 'taken' } catch (error) { error.name }"
    run = "try { setTimeout('window.attacked = 1'); 'taken' } catch (error) { error.name }"

    assert browser.run(slip) == "TypeError"
    assert browser.run(run) in {"TypeError", "EvalError"}


def test_many_calls_stay_below_five_megabytes(browser: Browser, page_of: PageOf) -> None:
    """
    Of 50,000 calls every figure is there, failed calls and the slowest have texts, and the page says what is left out.
    """
    records = run_of(500, 100)
    for record in records:
        record["response"] = f"answer {record['seq']}: " + "of some length, in 中文 and English. " * 40
    for record in records[::25]:
        record |= {"success": False, "error_type": "timeout", "response": "", "error_message": f"late {record['seq']}"}

    page, made = page_of(records)
    browser.open(page)
    browser.run("document.querySelectorAll('#matrix button')[1].click()")

    assert made.records == 50_000
    assert made.bytes == page.stat().st_size < 5_000_000
    assert 2_100 < made.shown < 50_000
    assert browser.texts("#matrix-more button") == ["Show more: 40 of 500 questions"]
    assert (
        f"{made.shown:,} of 50,000 calls are in this page: 2,000 of 2,000 that failed"
        in browser.texts("#calls-about")[0]
    )
    assert browser.run("DATA.groups.reduce((sum, group) => sum + group.records, 0)") == 50_000
    assert browser.console == []


def test_real_lines_in_older_shapes_make_a_page(browser: Browser, sample_path: Path, tmp_path: Path) -> None:
    """
    152 real lines in two older shapes are all there, with their texts.
    """
    out = tmp_path / "real.html"

    made = report(sample_path, out)
    browser.open(out)

    assert (made.records, made.shown, made.bad_lines) == (152, 152, 0)
    assert browser.console == []
    assert browser.texts("#summary .tile dd")[0] == "152"
