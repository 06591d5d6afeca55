"""The pages as people meet them. Screenshots stay in build/pages for a look."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has none
from playwright.sync_api import Browser, Page, Route

from haproxy.pages import read, render

SCREENSHOTS = Path(__file__).parents[2] / "build" / "pages"
FILES = render(read())
PAGES = sorted(name for name in FILES if name.endswith(".html"))

URL = "https://app.example/wiki"
PORTAL = "https://portal.example/?return=x"
TOKEN = f"kat_{'0' * 38}"
# As haproxy.cfg has it; form-action is 'none' on the others.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# WCAG 2.2, 1.4.10 (reflow) and 2.5.5 (target size, the enhanced one).
NARROW_PX = 320
TARGET_PX = 44

Scheme = Literal["light", "dark"]


@contextmanager
def opened(
    chromium: Browser,
    name: str,
    *,
    portal: str = PORTAL,
    scheme: Scheme = "light",
    width: int = 1100,
    has_scripts: bool = True,
) -> Iterator[Page]:
    """Show a page as HAProxy sends it: filled in, and with its Content-Security-Policy."""
    values = {"portal": portal, "action": "?kat=form", "token": TOKEN}
    body = FILES[name]
    for variable, value in values.items():
        body = body.replace(f"%[var(txn.gate.{variable})]", value)
    answer = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY}
    context = chromium.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": 760},
        java_script_enabled=has_scripts,
    )

    def fulfill(route: Route) -> None:
        route.fulfill(body=body.replace("%%", "%"), headers=answer)

    try:
        page = context.new_page()
        page.route("**", fulfill)
        page.goto(URL)
        yield page
    finally:
        context.close()


@pytest.mark.parametrize("portal", [PORTAL, ""], ids=["portal", "no-portal"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(chromium: Browser, name: str, scheme: Scheme, portal: str) -> None:
    """No rule of axe-core is violated, best practices included, and none is left undecided."""
    with opened(chromium, name, scheme=scheme, portal=portal) as page:
        where = f"{name.removesuffix('.html')}-{scheme}{'' if portal else '-no-portal'}.png"
        page.screenshot(path=SCREENSHOTS / where)
        found = Axe().run(page, options={"resultTypes": ["violations", "incomplete"]})
        assert found.violations_count == 0, found.generate_report()
        assert [rule["id"] for rule in found.response["incomplete"]] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_narrow_screen(chromium: Browser, name: str) -> None:
    """At 320 pixels nothing has to be scrolled sideways, and what is to be hit is large enough."""
    with opened(chromium, name, width=NARROW_PX) as page:
        page.screenshot(path=SCREENSHOTS / f"{name.removesuffix('.html')}-narrow.png")
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW_PX
        boxes = [target.bounding_box() for target in page.locator("a, button").all()]
        assert all(box and box["height"] >= TARGET_PX for box in boxes)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_breaks_no_rule_of_its_policy(chromium: Browser, name: str) -> None:
    """The browser complains of nothing, and asks for nothing but the page."""
    with opened(chromium, name) as page:
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        assert (said, asked) == ([], [URL])


@pytest.mark.parametrize("name", PAGES)
def test_the_link_is_there_if_the_portal_is(chromium: Browser, name: str) -> None:
    """Without a portal no link is seen, nor reached by the keyboard."""
    with opened(chromium, name) as page:
        assert page.locator("a").get_attribute("href") == PORTAL
        assert page.locator("a").is_visible()
    with opened(chromium, name, portal="") as page:
        assert page.locator("a").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_keyboard_is_seen(chromium: Browser, scheme: Scheme) -> None:
    """What has the focus has an outline, first the button, then the link."""
    with opened(chromium, "confirm.html", scheme=scheme) as page:
        for element in ("button", "a"):
            page.keyboard.press("Tab")
            focused = page.locator(f"{element}:focus-visible")
            assert focused.evaluate("e => getComputedStyle(e).outlineWidth") == "3px"


def test_the_button_posts_the_token_without_any_script(chromium: Browser) -> None:
    """A browser in which JavaScript is off sends exactly `kat=<token>`, to where it was told."""
    with (
        opened(chromium, "confirm.html", has_scripts=False) as page,
        page.expect_request(lambda request: request.method == "POST") as posted,
    ):
        page.get_by_role("button").click()
    assert posted.value.url == f"{URL}?kat=form"
    assert posted.value.post_data == f"kat={TOKEN}"


def test_a_printed_page_is_black_on_white(chromium: Browser) -> None:
    """Whoever prints from the dark scheme gets the light one."""
    with opened(chromium, "403.html", scheme="dark") as page:
        style = "getComputedStyle(document.querySelector('main')).backgroundColor"
        assert page.evaluate(style) != "rgb(255, 255, 255)"
        page.emulate_media(media="print")
        assert page.evaluate(style) == "rgb(255, 255, 255)"
