"""In by one token: a whole page, for this browser, for as long as its session stands."""

import re

from tests.browser.person import COMPLETE, Meet
from tests.browser.world import COOKIE, WIKI, World
from tests.support.haproxy import Haproxy

NEXT = "a[href='/notes']"
LOG_OUT = "form[action='/.kat/logout'] button"
PROTOCOL = "performance.getEntriesByType('navigation')[0].nextHopProtocol"


def test_one_token_opens_a_whole_page(world: World, each_door: Haproxy, meet: Meet) -> None:
    """After one token 60 assets and a WebSocket load by h2, and the page's URL is clean.

    Back, reload and a second tab work, and the audit tells of one consume in all.
    """
    alice = meet(each_door)
    link = alice.enter()
    assert alice.page.url == WIKI
    assert alice.page.evaluate(PROTOCOL) == "h2"
    assert len(re.findall(f'{alice.source}:.*class=allow.*"/asset/', each_door.log())) == 60
    assert alice.click(NEXT).status == 200
    alice.page.go_back()
    alice.page.wait_for_selector(COMPLETE)
    alice.page.reload()
    alice.page.wait_for_selector(COMPLETE)
    tab = alice.context.new_page()
    tab.goto(WIKI)
    tab.wait_for_selector(COMPLETE)
    world.wait_for(link, "session")
    assert len(world.events(link, "consumed")) == 1


def test_a_link_opens_in_one_browser(world: World, each_door: Haproxy, meet: Meet) -> None:
    """Whoever comes second with a link gets a 403 page, and the audit names both addresses."""
    alice, mallory = meet(each_door), meet(each_door)
    link = alice.enter()
    assert mallory.visit(link).status == 403
    assert mallory.cookie() is None
    told = world.wait_for(link, "replayed")
    assert alice.source != mallory.source
    assert (told["first_src"], told["src"]) == (alice.source, mallory.source)
    assert alice.click(NEXT).status == 200


def test_a_link_that_was_used_does_no_harm(world: World, door: Haproxy, meet: Meet) -> None:
    """In the browser that has the session, the same link leads to the page and its clean URL."""
    alice = meet(door)
    link = world.link("notes")
    for _ in range(2):
        assert alice.visit(link).status == 200
        assert alice.page.url == f"{WIKI}notes"
    world.wait_for(link, "consumed")


def test_the_sessions_cookie(world: World, door: Haproxy, meet: Meet) -> None:
    """No script reads it, no other host gets it, and no other site's page can make use of it."""
    alice = meet(door)
    alice.visit(world.link("notes"))
    (cookie,) = [one for one in alice.context.cookies() if one["name"] == COOKIE]
    assert (cookie["domain"], cookie["path"]) == ("wiki.localhost", "/")
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")


def test_revoked_in_the_admin_view(world: World, door: Haproxy, meet: Meet) -> None:
    """Once the portal's admin sees that a session is revoked, the very next click gets 403."""
    alice, bob = meet(door), meet(door)
    link = world.link("notes")
    alice.visit(link)
    sid = world.wait_for(link, "session")["sid"]
    bob.log_in("bob")
    bob.click("a[href='/admin']")
    bob.click(f"tr[data-sid='{sid}'] button[name=sid]")
    assert bob.page.inner_text("[role=status]")
    assert alice.click(NEXT).status == 403


def test_logged_out(world: World, door: Haproxy, meet: Meet) -> None:
    """The button ends the session and takes the cookie; the next click is 403, in any tab.

    So is it for who kept a copy of the cookie.
    """
    alice = meet(door)
    link = world.link("notes")
    alice.visit(link)
    cookie = alice.cookie()
    assert cookie
    tab = alice.context.new_page()
    tab.goto(f"{WIKI}notes")
    assert alice.click(LOG_OUT).status == 200
    assert alice.cookie() is None
    with tab.expect_navigation() as navigation:
        tab.click(NEXT)
    assert navigation.value.status == 403
    world.wait_for(link, "logout")
    alice.context.add_cookies([{"name": COOKIE, "value": cookie, "url": WIKI, "secure": True}])
    assert alice.cookie() == cookie
    assert alice.visit(WIKI).status == 403


def test_a_session_that_ends_before_a_form_is_sent(world: World, door: Haproxy, meet: Meet) -> None:
    """What is sent without a session gets the 401 page, and the application sees nothing of it."""
    alice = meet(door)
    alice.visit(world.link("notes"))
    alice.page.fill("input[name=text]", "This does not arrive.")
    world.end_session(alice.cookie())
    before = world.visits.requests
    assert alice.click("button:has-text('Add')").status == 401
    assert world.visits.requests == before
