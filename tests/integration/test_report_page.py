"""The report in a real browser: drawn, offline, on a desktop and on a phone."""

from __future__ import annotations

import base64
import io
import time

import pytest
from PIL import Image

from fff.report.writing import write_report
from tests.support.browser import browser, complaints, resize
from tests.support.reported_campaigns import ReportedCampaign

pytestmark = [pytest.mark.slow, pytest.mark.integration]

WAIT_S = 120.0


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    campaign = ReportedCampaign(tmp_path_factory.mktemp("page") / "run")
    campaign.fail("did not converge <script>document.title = 'taken'</script>", "tasks/label.failure.txt")
    return write_report(campaign.run)


@pytest.fixture
def page(report):
    """The page in a browser that reaches no network."""
    with browser(in_3d=True) as page:
        page.execute_cdp_cmd("Network.enable", {})
        page.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
        )
        page.get(report.path.as_uri())
        end = time.monotonic() + WAIT_S
        while not (state := viewer_state(page)) and time.monotonic() < end:
            time.sleep(0.1)
        assert state == "ready"
        yield page


def viewer_state(page):
    return page.execute_script("return document.getElementById('viewer').dataset.state")


CANVAS = """
const open = [document.getElementById('structure')];
while (open.length) {
    for (const element of open.pop().querySelectorAll('*')) {
        if (element.tagName === 'CANVAS') return element.toDataURL('image/png');
        if (element.shadowRoot) open.push(element.shadowRoot);
    }
}
"""


def drawn(page) -> Image.Image:
    """Return the picture of the structure that is shown.

    From the canvas itself: a screenshot of it may take the driver longer than the 10 s that it waits.
    """
    png = base64.b64decode(page.execute_script(CANVAS).partition(",")[2])
    return Image.open(io.BytesIO(png)).convert("RGB")


def drawn_when(page, is_wanted) -> Image.Image:
    """Return the first picture that is wanted: a frame is drawn some time after it was asked for."""
    end = time.monotonic() + WAIT_S
    while not is_wanted(picture := drawn(page)) and time.monotonic() < end:
        time.sleep(0.2)
    assert is_wanted(picture)
    return picture


def test_the_page_is_whole_without_a_network_on_desktop_and_phone(page):
    for width in (1280, 390):
        resize(page, width, 900)
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        papers = (
            "[...document.querySelectorAll('.paper')].map(paper => paper.scrollWidth - paper.clientWidth)"
        )
        assert max(page.execute_script(f"return {papers}")) <= 0
    loaded = page.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(loaded) == 8
    assert all(loaded)
    sources = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in sources if not name.startswith(("data:", "blob:"))] == []
    assert complaints(page) == []
    assert page.title == "ethanol: report of a campaign"


def test_the_worst_structures_are_drawn_and_a_row_shows_its_own(page):
    # Shaded balls and sticks, on white.
    first = drawn_when(page, lambda picture: len(picture.getcolors(maxcolors=1 << 20)) > 100)
    assert page.execute_script("return document.querySelectorAll('tr.shown').length") == 1
    page.execute_script("document.querySelectorAll('button.show')[7].click()")
    drawn_when(page, lambda picture: picture.tobytes() != first.tobytes())
    shown = page.execute_script("return document.querySelector('tr.shown').textContent")
    assert shown.startswith("7: C2H6O")
    assert complaints(page) == []


def test_without_three_dimensions_the_page_says_so_and_keeps_its_table(report):
    with browser() as page:
        page.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument",
            {"source": "HTMLCanvasElement.prototype.getContext = () => null;"},
        )
        page.get(report.path.as_uri())
        end = time.monotonic() + WAIT_S
        while not (state := viewer_state(page)) and time.monotonic() < end:
            time.sleep(0.1)
        assert state == "failed"
        assert "cannot be shown here" in page.find_element("id", "viewer").text
        assert len(page.find_elements("css selector", "button.show")) > 10
