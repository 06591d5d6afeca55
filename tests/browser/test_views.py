"""Every page as it is really served: kept as a picture in build/screenshots, and judged by axe."""

from collections.abc import Callable, Iterator
from http import HTTPStatus

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

from tests.browser.person import COMPLETE, Meet, Person
from tests.browser.world import PORTAL, WIKI, World
from tests.support.haproxy import ROOT, Haproxy

SCREENSHOTS = ROOT / "build" / "screenshots"
SERIOUS = {"serious", "critical"}

PNG = b"\x89PNG\r\n\x1a\n"
LEAST_BYTES = 8_000
"""A blank page of this size has half of it."""


def look_at(page: Page, name: str) -> None:
    """Take a picture in each colour scheme, and have axe find nothing serious there."""
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        picture = SCREENSHOTS / f"{name}-{colours}.png"
        picture.unlink(missing_ok=True)
        page.screenshot(path=picture, full_page=True)
        content = picture.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > LEAST_BYTES
        found = Axe().run(page).response["violations"]
        assert [one for one in found if one["impact"] in SERIOUS] == []


# --- The gate's own ------------------------------------------------------------------------------


def without_anything(alice: Person, _: World) -> int:
    return alice.visit(WIKI).status


def with_a_used_link(alice: Person, world: World) -> int:
    link = world.link()
    alice.visit(link)
    alice.context.clear_cookies()
    return alice.visit(link).status


def after_the_session(alice: Person, world: World) -> int:
    alice.visit(world.link("notes"))
    alice.page.fill("input[name=text]", "This does not arrive.")
    world.end_session(alice.cookie())
    return alice.click("button:has-text('Add')").status


def after_many_guesses(alice: Person, _: World) -> int:
    answers = (alice.visit(f"{WIKI}?kat=kat_guess-{n}").status for n in range(10))
    return next((status for status in answers if status != HTTPStatus.FORBIDDEN), 0)


def logged_out(alice: Person, world: World) -> int:
    alice.visit(world.link())
    return alice.click("form[action='/.kat/logout'] button").status


OF_GATE: dict[str, tuple[int, Callable[[Person, World], int]]] = {
    "gate-403-missing": (403, without_anything),
    "gate-403": (403, with_a_used_link),
    "gate-401": (401, after_the_session),
    "gate-429": (429, after_many_guesses),
    "gate-logout": (200, logged_out),
}


@pytest.mark.parametrize("name", OF_GATE)
def test_the_gates_pages(world: World, door: Haproxy, meet: Meet, name: str) -> None:
    """Each is accessible and has a heading, in light and in dark."""
    alice = meet(door)
    status, come_to = OF_GATE[name]
    assert come_to(alice, world) == status
    assert alice.page.inner_text("h1")
    look_at(alice.page, name)


def test_the_page_that_asks(world: World, asking_door: Haproxy, meet: Meet) -> None:
    """It is accessible, in light and in dark."""
    alice = meet(asking_door)
    alice.visit(world.link())
    assert alice.page.inner_text("form button")
    look_at(alice.page, "gate-confirm")


@pytest.fixture
def door_without_agent(world: World) -> Iterator[Haproxy]:
    with world.door("door-without-agent", KAT_AGENT=f"unix@{world.folder}/nobody.sock") as door:
        yield door


def test_the_page_of_an_agent_that_is_gone(
    world: World, door_without_agent: Haproxy, meet: Meet
) -> None:
    """Without an agent there is a 503 page, accessible in light and in dark, and nobody gets in."""
    alice = meet(door_without_agent)
    link = world.link()
    assert alice.visit(link).status == 503
    look_at(alice.page, "gate-503")
    assert not world.is_consumed(link)


# --- The portal and the application --------------------------------------------------------------


def logged_in(someone: Person) -> None:
    someone.log_in()


def without_any_application(someone: Person) -> None:
    someone.log_in("carol")


def among_admins(someone: Person) -> None:
    someone.enter("bob")
    someone.visit(f"{PORTAL}admin")


def refused(someone: Person) -> None:
    someone.log_in()
    someone.visit(f"{PORTAL}admin")


OF_PORTAL: dict[str, Callable[[Person], object]] = {
    "portal-login": lambda someone: someone.visit(PORTAL),
    "portal-applications": logged_in,
    "portal-empty": without_any_application,
    "portal-admin": among_admins,
    "portal-403": refused,
}


@pytest.mark.parametrize("name", OF_PORTAL)
def test_the_portals_pages(door: Haproxy, meet: Meet, name: str) -> None:
    """Each is accessible and has a heading, in light and in dark."""
    someone = meet(door)
    OF_PORTAL[name](someone)
    assert someone.page.inner_text("h1")
    look_at(someone.page, name)


def test_the_applications_pages(world: World, door: Haproxy, meet: Meet) -> None:
    """Both are accessible, in light and in dark."""
    alice = meet(door)
    alice.visit(world.link())
    alice.page.wait_for_selector(COMPLETE)
    look_at(alice.page, "application-home")
    alice.click("a[href='/notes']")
    look_at(alice.page, "application-notes")
