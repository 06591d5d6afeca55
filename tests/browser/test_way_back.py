"""From a page that did not open to the portal, and back to that very page."""

from urllib.parse import parse_qs, urlsplit

from tests.browser.person import Meet, Person
from tests.browser.world import PORTAL, WIKI, World, name_of
from tests.support.haproxy import Haproxy

TO_PORTAL = f"a[href^='{PORTAL}']"
ASKED = f"{WIKI}notes?page=2&of=a%26b"


def way_back(person: Person) -> dict[str, list[str]]:
    """Return what the page's link hands to the portal."""
    href = person.page.get_attribute(TO_PORTAL, "href")
    assert href
    return parse_qs(urlsplit(href).query)


def test_back_to_the_page_that_was_asked_for(world: World, door: Haproxy, meet: Meet) -> None:
    """Without anything: 403, the portal, a click, and then the URL that was asked for."""
    alice = meet(door)
    assert alice.visit(ASKED).status == 403
    alice.click(TO_PORTAL)
    alice.log_in()
    assert ASKED in alice.page.inner_text("[data-return]")
    link = alice.open_application()
    alice.page.wait_for_selector("body[data-page=notes]")
    assert alice.page.url == ASKED
    world.wait_for(link, "consumed")


def test_bound_to_the_browser_that_asked(world: World, door: Haproxy, meet: Meet) -> None:
    """A link for the nonce of one browser's page stays whole in another, and opens in the first."""
    alice, mallory = meet(door), meet(door)
    alice.visit(WIKI)
    mallory.visit(WIKI)
    (nonce,) = way_back(alice)["nonce"]
    assert [nonce] != way_back(mallory)["nonce"]
    link = world.link(nonce=nonce)
    assert mallory.visit(link).status == 403
    assert f"reason=wrong_nonce error=- kid={name_of(link)}" in door.log()
    assert not world.is_consumed(link)
    assert alice.visit(link).status == 200
    assert world.is_consumed(link)


def test_the_portal_binds_its_tokens(world: World, door: Haproxy, meet: Meet) -> None:
    """Who comes from the page gets a link from the portal that opens in this browser alone."""
    alice = meet(door)
    alice.visit(WIKI)
    (nonce,) = way_back(alice)["nonce"]
    alice.click(TO_PORTAL)
    alice.log_in()
    link = alice.open_application()
    assert f'"nonce":"{nonce}"' in world.remains(link)


def test_no_way_to_elsewhere(door: Haproxy, meet: Meet) -> None:
    """A link to the portal with somebody else's return address sends the token to nobody else."""
    alice = meet(door)
    for target in ("https://elsewhere.example:9443/", "//elsewhere.example:9443/", "/\\x"):
        alice.visit(f"{PORTAL}?return={target}")
        if "login" in str(alice.page.get_attribute("body", "data-page")):
            alice.log_in()
        link = alice.open_application()
        assert link.startswith(f"{WIKI}?kat=")
        assert alice.page.url == WIKI
