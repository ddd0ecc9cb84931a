"""The report of a real run in a browser: the slider adds orders up, by mouse and keyboard, light and dark, and on paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcx_core.analysis.pictures import Pictures, limit_of
from featcx_core.report.canvas import DARK, LIGHT
from featcx_core.report.facets.maps import diverging
from tests.e2e.conftest import Finished

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.ui
Visit = Callable[..., Any]
PIXELS = """canvases => canvases.map(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, first: Finished) -> Iterator[Visit]:
    """Opens the run's report without a network; fails on errors in the console."""
    contexts, errors = [], list[str]()

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        )
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(Path(first.json["report"]).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def stored(first: Finished) -> Pictures:
    return Pictures.load(Path(first.json["artifacts"]["pictures"]))


def drawn(page: Any) -> np.ndarray:
    """(k, 3, H, W, 3): what the canvases of each image show: so far, missing, f."""
    canvases = page.locator("#maps canvas")
    sizes = canvases.evaluate_all("canvases => canvases.map(c => [c.height, c.width])")
    pixels = np.array(canvases.evaluate_all(PIXELS)).reshape(len(sizes) // 3, 3, *sizes[0], 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3]


def expected(stored: Pictures, step: int, theme: Any) -> np.ndarray:
    """The same from the stored maps through matplotlib's colours."""
    now = stored.phi[:, step - 1]
    maps = np.stack([now, stored.feature - now, stored.feature], 1) / limit_of(stored)
    return 255 * diverging(theme)((maps + 1) / 2)[..., :3]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_the_slider_adds_orders_up_and_says_what_is_explained(
    visit: Visit, stored: Pictures, first: Finished, width: int, scheme: str
) -> None:
    page, theme = visit(width, scheme), LIGHT if scheme == "light" else DARK
    slider, label = page.locator("#maps input[type=range]"), page.locator("#maps output")
    assert page.get_by_label("Add orders one by one").first.evaluate("e => e.id") == slider.get_attribute("id")
    slider.focus()
    before, texts = None, []
    for step, row in enumerate(first.json["orders"], 1):
        assert slider.input_value() == str(step)
        pixels = drawn(page)
        assert np.abs(pixels - expected(stored, step, theme)).max() <= 4  # matplotlib has 256 colours in all
        if before is not None:
            assert (pixels[:, 0] != before[:, 0]).any((1, 2, 3)).all()
            np.testing.assert_array_equal(pixels[:, 2], before[:, 2])
        texts.append(label.inner_text())
        assert texts[-1].startswith(f"Order {row['order']} ({step} of {len(first.json['orders'])}): ")
        assert f"{100 * (1 - row['residual']):.1f}%" in texts[-1]
        assert slider.get_attribute("aria-valuetext") == texts[-1]
        before = pixels
        page.keyboard.press("ArrowRight")
    assert len(set(texts)) == len(texts)
    page.keyboard.press("Home")
    assert label.inner_text() == texts[0]
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert label.inner_text() == texts[-1]
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_images_stand_beside_their_maps(visit: Visit, stored: Pictures) -> None:
    page = visit(375)
    images = page.locator("#maps .quad img")
    assert images.count() == len(stored.samples)
    assert images.evaluate_all("images => images.every(i => i.complete && i.naturalWidth > 0)")
    first_row = page.locator("#maps .quad").first.locator("img, canvas")
    tops = first_row.evaluate_all("parts => parts.map(p => Math.round(p.getBoundingClientRect().top))")
    assert len(tops) == 4
    assert len(set(tops)) == 1
    meta = json.loads(page.locator("#maps script").text_content())
    assert len(meta["maps"]) == len(stored.samples)


def test_the_colours_follow_the_reader(visit: Visit, stored: Pictures) -> None:
    page = visit(1280, "light")
    page.emulate_media(color_scheme="dark")
    assert np.abs(drawn(page) - expected(stored, 1, DARK)).max() <= 4


def test_on_paper_all_orders_are_there_in_light_colours(visit: Visit, stored: Pictures) -> None:
    page, orders = visit(1280, "dark"), len(stored.orders)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert np.abs(drawn(page) - expected(stored, orders, LIGHT)).max() <= 4
    assert page.locator("#maps output").inner_text().startswith(f"Order {stored.orders[-1]} ({orders} of {orders})")
    page.emulate_media(media="print")
    assert np.abs(drawn(page) - expected(stored, orders, LIGHT)).max() <= 4
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert np.abs(drawn(page) - expected(stored, 1, DARK)).max() <= 4
    assert page.pdf()[:4] == b"%PDF"


def test_only_the_target_has_a_slider(visit: Visit, first: Finished) -> None:
    page = visit(1280)
    names = page.locator("input[type=range]").evaluate_all("inputs => inputs.map(i => i.id)")
    assert names == ["maps-order"]
