"""The report: its numbers against the frames, its bytes, what it says when something is missing, and how it looks."""

import base64
import html
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from featcx_core.errors import InputError
from featcx_core.report.facets.significance import read_covariance, read_significance
from featcx_core.report.page import MISSING
from featcx_core.report.run import summary, write_report
from featcx_core.wording import accuracy_interval
from tests.made_frames import measured, reliability, troubled

CHROMIUM = Path("/usr/bin/chromium")
SPEC = {
    "dataset": {"source": "mnist", "size": None},
    "target": {"net": "resnet8", "samples": 60, "options": {}},
    "disentangler": {"blocks": [1, 2, 4, 8]},
    "analysis": {"bootstrap": 100, "confidence": 0.95},
}
SCORES = {"train_accuracy": 0.985, "test_accuracy": 0.916, "train_loss": 0.45, "test_loss": 0.65}
ORIGIN = {
    "stage": "significance",
    "label": "significance",
    "key": "6f1b25798f9c5c90b900a29dea48fa30",
    "digest": "da414089d03115d93b504f002cbfb8e8",
    "seconds": 2.384,
    "device": "x86_64 CPU",
    "started": "2026-11-22T10:06:57+00:00",
    "versions": {"python": "3.11.7", "torch": "2.15.0"},
    "files": {},
}


def write(folder, analyses, chosen=None, **changes):
    arguments = {"title": "resnet8 on mnist", "spec": SPEC, "provenance": [ORIGIN], "scores": SCORES, "notes": {}}
    return write_report(folder, analyses, chosen_order=chosen, **(arguments | changes))


def body(path):
    """The page without its pictures."""
    return re.sub(r"data:image/svg\+xml;base64,[\w+/=]+", "", path.read_text())


def section(page, anchor):
    """The text of one section, tags dropped."""
    found = re.search(rf'<section id="{anchor}">.*?</section>', page, re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", found[0])))


def sentences(text):
    return len(re.findall(r"\.(?=\s|$)", text))


def numbers(text):
    return {float(n.replace("−", "-").replace(",", "")) for n in re.findall(r"[+−]?\d[\d,]*(?:\.\d+)?", text)}


def percents(*values):
    return {round(100 * value, 1) for value in values}


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    frames = {**measured(), **reliability()}
    return write(tmp_path_factory.mktemp("easy"), {"target": frames}, 25)


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    analyses = {"target": troubled(), "distilled": measured()}
    return write(tmp_path_factory.mktemp("hard"), analyses, 7, notes={"quantised": "It was switched off. Ask for it."})


@pytest.mark.parametrize(("frames", "chosen"), [(measured(), 25), (troubled(), 7)], ids=["measured", "troubled"])
def test_every_number_of_the_summary_is_the_frames(frames, chosen):
    simple, effects, gain = summary(frames, chosen, {})
    order = frames["significance"].set_index("order")
    half = len(order) // 2
    below, last = order.iloc[half - 1], order.iloc[-1]
    allowed = percents(1 - below["residual"], 1 - below["residual_low"], 1 - below["residual_high"])
    allowed |= percents(below["residual"] - last["residual"], *last[["residual", "residual_low", "residual_high"]])
    assert numbers(simple) == allowed | {below.name, half, len(order), *order.index[half:]}

    table = frames["effectiveness"].set_index("order")
    top = table.loc[table["effectiveness"].idxmax()]
    shown = {float(f"{top[name]:.3g}") for name in ("effectiveness", "effectiveness_low", "effectiveness_high")}
    assert numbers(effects) == shown | set(table.index)
    effective = table.index[table["effectiveness_low"] > 0]
    assert numbers(effects.partition(" effective")[0]) == set(effective)
    stable = table[table["overfitting_stable"]]
    for words, expected in (
        ("above zero", stable.index[stable["overfitting_low"] > 0]),
        ("below zero", stable.index[stable["overfitting_high"] < 0]),
        ("too unstable to read", table.index[~table["overfitting_stable"]]),
    ):
        found = re.search(rf"is {words} at orders? ([\d, and]+)", effects.partition("over-fitting")[2])
        assert (numbers(found[1]) if found else set()) == set(expected)

    rows = frames["substitution_splits"].set_index("split")
    own, n = rows["accuracy"]["test"], rows["rows"]
    value = frames["substitution"].set_index("order")["substituted_accuracy"][chosen]
    expected = percents(own, value) | {chosen, n["validation"], n["test"]}
    change = re.search(r"(?:by|gains|loses) ([+−\d.]+) points", gain)[1]
    assert abs(float(change.replace("−", "-"))) == pytest.approx(abs(round(100 * (value - own), 1)))
    assert numbers(gain.replace(change, "")) == expected


@pytest.mark.parametrize("frames", [measured(), troubled()], ids=["measured", "troubled"])
def test_significances_residual_and_covariances_are_told_and_make_the_whole(frames):
    frame, order = frames["covariance"], frames["significance"]
    own = frame[frame["a"] == frame["b"]].set_index("a")["covariance"]
    between = frame[frame["a"] != frame["b"]]["covariance"].sum()
    summed, residual = own.drop("residual").sum(), own["residual"]
    told = re.search(
        r"significances of all orders sum to (\S+)%, .*? is (\S+)%, .*? sum to (\S+)%, .*? are (\S+)% of",
        read_covariance(frames),
    )
    shown = [float(text.replace("−", "-")) for text in told.groups()]
    assert shown == pytest.approx(
        [100 * v for v in (summed, residual, between, summed + residual + between)], abs=0.051
    )
    if frames["splits"]["rows"].max() < 1000:  # measured, so its parts must add up; the made ones need not
        assert shown[-1] == 100
        assert sum(shown[:-1]) == pytest.approx(100, abs=0.16)
    assert f"the significances sum to {100 * order['significance'].sum():.1f}%" in read_significance(frames)


def test_a_higher_order_is_named_first_only_where_its_interval_is_apart():
    frames = troubled()
    assert "its interval above all others" in read_significance(frames)
    frames["significance"].loc[1, "significance_high"] = 0.365
    assert "not told apart from order 7" in read_significance(frames)


def test_wilson_interval_against_published_values():
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3
    assert accuracy_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert accuracy_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert accuracy_interval(0.0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


@pytest.mark.parametrize("page", ["easy", "hard"])
def test_summary_has_three_sentences_and_readings_two(page, request):
    text = body(request.getfixturevalue(page))
    block = html.unescape(re.search(r'<div class="summary">(.*?)</div>', text, re.DOTALL)[1])
    assert sentences(re.sub(r"<[^>]+>", "", block)) == 3
    found = re.findall(r'<p class="reading">(.*?)</p>\s*<p class="paper">(.*?)</p>', text)
    assert len(found) == (11 if page == "easy" else 11 + 10)
    assert all(sentences(part) == 1 for pair in found for part in pair)


def test_key_figures_and_intervals_are_told(easy):
    frames, page = measured(), body(easy)
    tiles = re.sub(r"<[^>]+>", " ", re.search(r'<dl class="tiles">(.*?)</dl>', page, re.DOTALL)[1])
    last = frames["significance"].iloc[-1]
    assert {"91.6%", "98.5%", f"{100 * (1 - last['residual']):.1f}%", "25"} <= set(tiles.split())
    covers = re.search(r'<p class="about">(Values in brackets.*?)</p>', page)[1]
    assert "95% bootstrap intervals (100 draws) over images" in covers
    assert "cover the disentanglers&#39; seeds too" in covers
    assert "n = 90 pool, 40 validation, 60 seen, 80 test images" in covers


def test_tables_show_values_with_intervals_and_sort_by_full_precision(easy):
    frame = measured()["significance"]
    page = section(body(easy), "significance")
    row = frame.iloc[0]
    shown = [f"{100 * row[f'significance{end}']:.1f}%" for end in ("", "_low", "_high")]
    assert f"{shown[0]} [{shown[1]}, {shown[2]}]" in page
    assert f'data-value="{float(row["significance"])!r}"' in body(easy)
    assert "tables/significance.parquet" in page


def test_the_same_input_gives_the_same_bytes(easy, tmp_path):
    again = write(tmp_path, {"target": {**measured(), **reliability()}}, 25).parent
    names = sorted(str(path.relative_to(easy.parent)) for path in easy.parent.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(again)) for path in again.rglob("*") if path.is_file())
    assert len(names) == 1 + 3 * 11 + 13
    for name in names:
        assert (easy.parent / name).read_bytes() == (again / name).read_bytes(), name


def test_written_tables_are_the_frames(hard):
    for network, frames in {"": troubled(), "distilled-": measured()}.items():
        for name, frame in frames.items():
            stored = pd.read_parquet(hard.parent / "tables" / f"{network}{name}.parquet")
            pd.testing.assert_frame_equal(stored, frame)


@pytest.mark.parametrize("page", ["easy", "hard"])
def test_the_page_needs_nothing_from_outside(page, request):
    path = request.getfixturevalue(page)
    assert re.findall(r"https?:|(?:src|href)=\"(?!#|\")[^\"]+", body(path)) == []
    assert "@import" not in body(path)
    assert "url(" not in body(path)
    pictures = re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", path.read_text())
    assert len(pictures) == 2 * (11 if page == "easy" else 11 + 10)
    for picture in pictures:
        addresses = re.findall(r"https?://[^\"'\s<]+", base64.b64decode(picture).decode())
        assert set(addresses) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_dark_pictures_are_offered_on_screens_only(easy):
    sources = re.findall(r"<source media=\"([^\"]+)\"", body(easy))
    assert set(sources) == {"screen and (prefers-color-scheme: dark)"}
    assert len(sources) == 11


def test_a_missing_frame_gives_its_note(tmp_path):
    notes = {"reliability": "The checkpoint has no second net.", "decodability": "No exemplary net was given."}
    page = body(write(tmp_path, {"target": measured()}, 25, notes=notes))
    text = section(page, "reliability")
    assert all(note in text for note in notes.values())
    assert "<picture>" not in re.search(r'<section id="reliability">.*?</section>', page, re.DOTALL)[0]
    assert not (tmp_path / "figures" / "reliability.svg").exists()
    assert "Left out" not in page


def test_half_of_reliability_is_drawn_with_a_note_on_the_other(tmp_path):
    frames = {**measured(), "reliability": reliability()["reliability"]}
    write(tmp_path, {"target": frames}, 25, notes={"decodability": "No exemplary net was given."})
    text = section(body(tmp_path / "report.html"), "reliability")
    assert "the reliability ratio runs from 0.676" in text
    assert "No exemplary net was given." in text
    assert (tmp_path / "figures" / "reliability.svg").exists()


@pytest.mark.parametrize(
    "left", ["significance", "splits", "covariance", "effectiveness", "interactions", "substitution"]
)
def test_any_frame_may_be_missing(left, tmp_path):
    frames = {name: frame for name, frame in measured().items() if name != left}
    page = body(write(tmp_path, {"target": frames}))
    assert MISSING in page
    block = html.unescape(re.search(r'<div class="summary">(.*?)</div>', page, re.DOTALL)[1])
    assert sentences(re.sub(r"<[^>]+>", "", block)) == 3


def test_nothing_at_all_still_makes_a_page(tmp_path):
    note = "It needs labels. There are none."
    path = write(tmp_path, {"target": {}}, spec={}, provenance=[], scores={}, notes={"effectiveness": note})
    page = body(path)
    assert "<picture>" not in page
    assert "Effectiveness: It needs labels; There are none." in page
    assert section(page, "shapley").count(note) == 1


def test_what_must_be_flagged_is(hard):
    page = body(hard)
    assert "residual rises at order 49 (15.5%)" in section(page, "significance")
    assert "exceeds that of the seen images by up to 17.6% (orders 13, 25, 49 and 97)" in section(page, "residuals")
    assert "Var[c reli] / Var[c] is above 1 at order 25 (up to 1.31)" in section(page, "reliability")
    over = section(page, "overfitting")
    assert "unstable at orders 25 and 49" in over
    assert "no reading at order 97" in over
    assert "−200.0% [unbounded]" in over


def test_what_need_not_be_flagged_is_not():
    from featcx_core.report.facets.reliability import above_one
    from featcx_core.report.facets.shapley import unstable_overfitting
    from featcx_core.report.facets.significance import not_learned, rising_residual, wide_gap

    frames = troubled()
    frames["significance"]["residual_rises"] = False
    frames["splits"]["gap_flag"] = False
    frames["effectiveness"] = frames["effectiveness"][:3]
    frames["reliability"] = frames["reliability"][:3]
    for check in (
        not_learned,
        rising_residual,
        wide_gap,
        above_one,
        unstable_overfitting,
    ):
        assert check(frames) == []


def test_other_networks_have_sections_files_and_a_comparison(hard):
    page = body(hard)
    assert len(set(re.findall(r'id="([^"]+)"', page))) == len(re.findall(r'id="([^"]+)"', page))
    assert 'id="distilled-significance"' in page
    assert (hard.parent / "figures" / "distilled-significance.png").exists()
    rows = re.search(r'<section id="side-by-side">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    assert re.findall(r'<tr><td data-value="(\w+)">', rows) == ["target"] * 6 + ["distilled"] * 4
    assert "quantised: It was switched off; Ask for it." in page


def test_the_given_order_counts_and_a_wrong_one_is_refused(tmp_path):
    page = body(write(tmp_path, {"target": measured()}, 7))
    assert "In this run order 7, chosen on 40 validation images" in section(page, "substitution")
    with pytest.raises(InputError, match="Order 8 is not in the substitution table"):
        write(tmp_path, {"target": measured()}, 8)


def test_provenance_and_settings_are_listed(easy):
    details = re.search(r'<details id="provenance">.*?</details>', body(easy), re.DOTALL)[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", details)
    assert cells[-8:] == [
        *("significance", "significance", "6f1b25798f9c", "da414089d031", "2.4", "x86_64 CPU"),
        *("2026-11-22T10:06:57+00:00", "python 3.11.7, torch 2.15.0"),
    ]
    settings = dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', details))
    assert settings["disentangler.blocks"] == "1, 2, 4, 8"
    assert settings["dataset.size"] == "–"


def test_texts_are_escaped(tmp_path):
    page = body(write(tmp_path, {"target": {}}, title="<script>alert(1)</script>", notes={"splits": "a < b & c"}))
    assert "<script>alert" not in page
    assert "a &lt; b &amp; c" in page


def test_the_template_is_package_data_and_the_report_knows_nothing_of_prefect():
    assert (files("featcx_core.report") / "templates" / "report.html.j2").is_file()
    code = "import sys; sys.modules['prefect'] = None; import featcx_core.report.run"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Opens a report; fails on errors in the console."""
    contexts, errors = [], []

    def open_page(path, width=1280, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


WIDTH = "document.scrollingElement.scrollWidth"


@pytest.mark.ui
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_no_page_sideways(hard, visit, scheme):
    page = visit(hard, 375, scheme)
    assert page.evaluate(WIDTH) <= 375
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(WIDTH) <= 375
    widest = page.locator("#reliability .scroll").nth(1)
    assert widest.evaluate("e => e.scrollWidth > e.clientWidth && e.getBoundingClientRect().right <= innerWidth")


@pytest.mark.ui
def test_headers_sort_by_number_and_by_keyboard(hard, visit):
    page = visit(hard, 375)
    values = "#overfitting tbody td:nth-child(2)"
    header = page.locator("#overfitting thead th").nth(1)

    def shown():
        return page.locator(values).all_inner_texts()

    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    rising = shown()
    assert [text.split("%")[0] for text in rising] == ["−200.0", "4.0", "12.5", "16.7", "60.0", "no reading"]
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert shown() == [*rising[-2::-1], "no reading"]
    page.locator("#overfitting thead button").first.click()
    assert header.get_attribute("aria-sort") is None
    assert page.locator("#overfitting tbody td:nth-child(1)").all_inner_texts() == ["4", "7", "13", "25", "49", "97"]


@pytest.mark.ui
def test_light_and_dark_follow_the_reader(easy, visit):
    paper = {"light": (255, 255, 255), "dark": (22, 26, 32)}
    for scheme, colour in paper.items():
        page = visit(easy, 1280, scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb{colour}"
        image = page.locator("#significance img")
        hexed = "#{:02x}{:02x}{:02x}".format(*colour)
        assert hexed in base64.b64decode(image.evaluate("e => e.currentSrc.split(',')[1]")).decode()
        assert image.evaluate("e => e.complete && e.naturalWidth > 0")


@pytest.mark.ui
def test_print_is_light_and_opens_what_is_folded(easy, visit):
    page = visit(easy, 1280, "dark")
    assert page.pdf()[:4] == b"%PDF"
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
