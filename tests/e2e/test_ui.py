"""Prefect's UI in a real browser, against a real server: a form filled in, a run watched, a report opened, a schedule on."""

from __future__ import annotations

import os
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.prefect_ui import Form, Service, serving, until_taken, wait_for

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A folder that takes the README's two screenshots: FEATCX_SCREENSHOTS=docs/figures pytest tests/e2e/test_ui.py
SCREENSHOTS = os.environ.get("FEATCX_SCREENSHOTS")
ON_A_PAGE = 20  # task runs that the UI lists and counts at a time
pytestmark = [pytest.mark.ui, pytest.mark.slow]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}")
    with serving(tmp_path_factory.mktemp("ui")) as running:
        yield running


@pytest.fixture(scope="module")
def page(service: Service) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.set_default_timeout(60_000)  # two cores may be busy with a run
        yield opened
        browser.close()


@pytest.fixture(scope="module")
def runs(service: Service, page: Any) -> dict[str, str]:
    """Two runs triggered through the form, by what they are for: their ids."""
    ids = {}
    form = Form.opened(page, service, "analyze")
    form.choose("preset", "digits")
    form.write("net", "resnet9")
    form.submit()
    ids["wrong"] = run_of(service, "resnet9-n200-s0")
    form = Form.opened(page, service, "analyze")
    form.choose("preset", "digits")
    form.write("samples", "100")
    form.choose("control", "off")
    form.choose("enabled", "off")  # of reliability
    form.leave_out_variants()
    form.submit()
    ids["first"] = run_of(service, "resnet8-n100-s0")
    return ids


def run_of(service: Service, name: str, other_than: str = "") -> str:
    """The id of the run that has taken this name."""

    def found() -> str | None:
        runs = service.api("/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
        return next((run["id"] for run in runs if run["id"] != other_than), None)

    return wait_for(found, 90, f"a run called {name}")


def state_of(service: Service, run: str) -> str:
    return service.api(f"/flow_runs/{run}")["state"]["type"]


def artifacts(service: Service, run: str) -> list[dict[str, Any]]:
    return service.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})


def visit_run(page: Any, service: Service, run: str, tab: str) -> None:
    page.goto(f"{service.ui}/v2/runs/flow-run/{run}")
    page.get_by_role("tab", name=tab).click()


def open_artifact(page: Any, service: Service, run: str, key: str) -> None:
    """From the run to its artifact: the card leads to all of that key, the newest first."""
    visit_run(page, service, run, "Artifacts")
    page.get_by_text(key, exact=True).click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()


def wait_or_reload(page: Any, wanted: Any) -> None:
    """As a person would: a busy server leaves a page empty now and then, which a second look fills."""
    from playwright.sync_api import TimeoutError as TooLate

    try:
        wanted.wait_for(timeout=20_000)
    except TooLate:
        page.reload()
        wanted.wait_for()


def picture(page: Any, name: str) -> None:
    """Keeps a screenshot for the README, where one is wanted."""
    if SCREENSHOTS:
        page.wait_for_timeout(2500)  # the graph moves into place
        page.screenshot(path=Path(SCREENSHOTS) / name)


def test_the_form_refuses_what_is_out_of_bounds(service: Service, page: Any) -> None:
    posted = list[str]()
    page.on("request", lambda request: posted.append(request.url) if "create_flow_run" in request.url else None)
    assert service.store.is_dir()  # before any run, or a refused one would remove what another has begun
    form = Form.opened(page, service, "analyze")
    form.write("samples", "0")
    form.press()
    samples = page.get_by_label("samples (Optional)")
    assert samples.evaluate("field => field.validationMessage") == "Value must be greater than or equal to 1."
    assert posted == []
    deployment = service.api("/deployments/name/analyze/analyze")["id"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        service.api(
            f"/deployments/{deployment}/create_flow_run", {"parameters": {"settings": {"target": {"samples": 0}}}}
        )
    assert refused.value.code == 409
    assert "'settings.target.samples'" in refused.value.read().decode()


def test_a_run_is_watched_to_its_end(service: Service, page: Any, runs: dict[str, str]) -> None:
    seen = set[float]()

    def done() -> bool:
        seen.update(each["data"] for each in artifacts(service, runs["first"]) if each["type"] == "progress")
        return state_of(service, runs["first"]) not in ("RUNNING", "PENDING", "SCHEDULED")

    visit_run(page, service, runs["first"], "Logs")
    page.get_by_text("Running", exact=True).first.wait_for()
    wait_for(done, 240, "the end of the run")
    page.get_by_text("Completed", exact=True).first.wait_for()
    assert len({share for share in seen if 0 < share < 100}) >= 2, seen
    assert {each["data"] for each in artifacts(service, runs["first"]) if each["type"] == "progress"} == {100}
    visit_run(page, service, runs["first"], "Artifacts")
    page.get_by_text("summary-resnet8-n100-s0", exact=True).wait_for()
    picture(page, "ui-run.png")


def test_the_summary_and_the_report_open(service: Service, page: Any, runs: dict[str, str]) -> None:
    open_artifact(page, service, runs["first"], "summary-resnet8-n100-s0")
    wait_or_reload(page, page.get_by_role("heading", name="resnet8-n100-s0 on digits"))
    assert page.get_by_role("columnheader", name="signif.").is_visible()
    assert page.get_by_text("Test accuracy").first.is_visible()
    page.get_by_role("link", name="Open the report").click()
    page.wait_for_url(f"{service.reports}/report/**")
    assert page.get_by_role("heading", level=1).inner_text() == "resnet8 on digits, n = 100"


def test_pictures_come_from_the_route(service: Service, page: Any, runs: dict[str, str]) -> None:
    open_artifact(page, service, runs["first"], "pictures-resnet8-n100-s0")
    pictures = page.get_by_role("img", name="significance")
    wait_or_reload(page, pictures)
    wait_for(lambda: pictures.evaluate("image => image.naturalWidth > 0"), 20, "the picture")


def test_what_exists_is_cached(service: Service, page: Any, runs: dict[str, str]) -> None:
    visit_run(page, service, runs["first"], "Details")
    page.get_by_role("button", name="Open menu").or_(page.locator("button[aria-haspopup=menu]")).first.click()
    page.get_by_role("menuitem", name="Copy to new run").click()
    Form(page).submit()
    again = run_of(service, "resnet8-n100-s0", runs["first"])
    wait_for(lambda: state_of(service, again) == "COMPLETED", 120, "the end of the run")
    visit_run(page, service, again, "Task Runs")
    stages = service.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [again]}}})
    assert {stage["state"]["name"] for stage in stages} == {"Cached"}
    page.get_by_text(f"({min(len(stages), ON_A_PAGE)} Cached)").wait_for()


def test_bad_input_fails_the_run_in_one_sentence(service: Service, page: Any, runs: dict[str, str]) -> None:
    sentence = (
        "There is no net 'resnet9'; did you mean 'resnet8'? Or give torchvision:NAME, timm:NAME or module:function."
    )
    run = wait_for(
        lambda: (found := service.api(f"/flow_runs/{runs['wrong']}"))["state"]["type"] == "FAILED" and found,
        60,
        "a failure",
    )
    assert run["state"]["message"] == sentence
    visit_run(page, service, runs["wrong"], "Logs")
    page.get_by_text(sentence, exact=True).wait_for()
    assert page.get_by_text("Traceback").count() == 0


def test_a_schedule_is_switched_on(service: Service, page: Any) -> None:
    page.goto(service.ui)
    page.get_by_role("link", name="Deployments").click()
    page.get_by_role("link", name="nightly-sizes").first.click()
    switch = page.get_by_role("switch")
    assert switch.get_attribute("aria-checked") == "false"
    until_taken(page, "/schedules/", switch.click)
    page.get_by_role("tab", name="Upcoming").click()
    deployment = service.api("/deployments/name/sweep/nightly-sizes")["id"]

    def coming() -> list[dict[str, Any]]:
        return service.api(
            "/flow_runs/filter",
            {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"},
        )

    wait_for(lambda: len(coming()) >= 2, 60, "the next runs")
    for run in coming():
        assert run["parameters"] == {"preset": "mnist", "sizes": [100, 200, 500, 1000], "seeds": [0, 1]}
        assert run["expected_start_time"][11:16] == "01:00"
    page.reload()  # it would look again by itself, but only in a while
    page.get_by_role("link", name=coming()[0]["name"]).wait_for()
    assert switch.get_attribute("aria-checked") == "true"
    picture(page, "ui-schedule.png")
