"""Where a token went: nowhere that anybody could find it later."""

import json

from playwright.sync_api import Page

from tests.browser.person import COMPLETE, Meet, Person
from tests.browser.world import WIKI, World, token_of
from tests.support.haproxy import Haproxy
from tests.support.leaks import assert_no_leaks

REMEMBERED = """async () => JSON.stringify({
    local: Object.entries(localStorage), session: Object.entries(sessionStorage),
    cookies: document.cookie, databases: (await indexedDB.databases()).map(one => one.name),
    caches: await caches.keys(), referrer: document.referrer, location: location.href,
    state: history.state, name: window.name, page: document.documentElement.outerHTML,
    entries: performance.getEntries().map(entry => entry.toJSON()),
})"""


def remembered(page: Page) -> str:
    """Return all that a page's scripts can find out about the past."""
    found = page.evaluate(REMEMBERED)
    assert isinstance(found, str)
    assert page.url in found
    return found


def history(page: Page) -> list[str]:
    """Return the tab's history, of all sites: what the back button has."""
    devtools = page.context.new_cdp_session(page)
    return [entry["url"] for entry in devtools.send("Page.getNavigationHistory")["entries"]]


def kept_by(person: Person) -> dict[str, str]:
    """Return what is found in a browser and in what it sent, but for its history."""
    return {
        "what scripts see": remembered(person.page),
        "cookies and storage": json.dumps(person.context.storage_state(indexed_db=True)),
        "Referer headers": json.dumps(person.referers),
    }


def test_no_token_stays_anywhere(world: World, door: Haproxy, meet: Meet) -> None:
    """After a walk through all that is there, no log, Referer, URL or storage has a token.

    Nor has the application seen one, or a cookie of the gate's.
    """
    alice, mallory = meet(door), meet(door)
    links = [alice.enter(), world.link("notes")]
    mallory.visit(links[0])
    alice.click("a[href='/notes']")
    alice.visit(links[1])
    alice.visit(WIKI)
    alice.page.wait_for_selector(COMPLETE)
    world.wait_for(links[0], "replayed")
    kept = {
        **world.traces(),
        **kept_by(alice),
        "history": json.dumps(history(alice.page)),
        "haproxy.log": door.log(),
    }
    assert WIKI in alice.referers
    assert f"{WIKI}notes" in kept["history"]
    assert '"/notes"' in kept["haproxy.log"]
    assert "/asset/59." in kept["access.log"]
    assert '"consumed"' in kept["audit"]
    assert_no_leaks(kept, [token_of(link) for link in links])
    assert (b"cookie", b"site-colour=green") in world.received
    assert "__Host-kat" not in kept["what the application got"]


def test_what_stays_of_a_page_that_asked(world: World, asking_door: Haproxy, meet: Meet) -> None:
    """The link stays in the tab's history, as the page's URL, used up; nothing else keeps it."""
    alice = meet(asking_door)
    link = world.link("notes")
    alice.visit(link)
    alice.click("form[method=post] button")
    assert history(alice.page)[-2:] == [link, f"{WIKI}notes"]
    assert world.is_consumed(link)
    world.wait_for(link, "consumed")
    kept = {**world.traces(), **kept_by(alice), "haproxy.log": asking_door.log()}
    assert '"/notes"' in kept["haproxy.log"]
    assert_no_leaks(kept, [token_of(link)])
