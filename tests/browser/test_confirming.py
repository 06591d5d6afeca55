"""KAT_CONFIRM: a link shows a page, and only the button on it consumes."""

import pytest

from tests.browser.elsewhere import ELSEWHERE, Elsewhere
from tests.browser.person import Meet
from tests.browser.world import WIKI, World, token_of
from tests.support.haproxy import Haproxy

FORM = """() => {
    const form = document.forms[0];
    form.action = form.action;  // the whole URL, also for who copies it
    return form.outerHTML;
}"""


@pytest.mark.parametrize("runs_scripts", [True, False], ids=["scripts", "no scripts"])
def test_the_button_consumes(
    world: World,
    asking_door: Haproxy,
    meet: Meet,
    runs_scripts: bool,  # noqa: FBT001 - a column of cases
) -> None:
    """A link may be looked at as often as one likes; the button opens the page behind it, once."""
    alice = meet(asking_door, java_script_enabled=runs_scripts)
    link = world.link("notes") + "&page=2&of=a%26b"
    for _ in range(2):
        assert alice.visit(link).status == 200
        assert not world.is_consumed(link)
        assert alice.cookie() is None
    assert alice.click("form[method=post] button").status == 200
    assert alice.page.url == f"{WIKI}notes?page=2&of=a%26b"
    assert alice.cookie()
    world.wait_for(link, "consumed")


def test_the_whole_way_through_the_page(world: World, asking_door: Haproxy, meet: Meet) -> None:
    """From the portal the page comes in between, and the application behind its button."""
    alice = meet(asking_door)
    alice.log_in()
    link = alice.open_application()
    assert not world.is_consumed(link)
    assert alice.click("form[method=post] button").status == 200
    assert alice.page.url == WIKI


def test_another_sites_form_does_not(
    world: World, asking_door: Haproxy, other_site: Elsewhere, meet: Meet
) -> None:
    """The same form on another site's page is refused: no consume, and nobody is logged in."""
    mallory, victim = meet(asking_door), meet(asking_door)
    link = world.link()
    mallory.visit(link)
    form = mallory.page.evaluate(FORM)
    assert token_of(form) == token_of(link)
    other_site.page = f"{form}<script>document.forms[0].submit()</script>"
    with victim.page.expect_response(lambda response: response.url.startswith(WIKI)) as refused:
        victim.page.goto(ELSEWHERE)
    assert (refused.value.request.method, refused.value.status) == ("POST", 403)
    assert not world.is_consumed(link)
    assert victim.cookie() is None
    assert mallory.click("form[method=post] button").status == 200


def test_another_site_cannot_frame_it(
    world: World, asking_door: Haproxy, other_site: Elsewhere, meet: Meet
) -> None:
    """In a frame of another site there is no page, so nobody is made to click on its button."""
    victim = meet(asking_door)
    link = world.link("framed")
    other_site.page = f'<iframe src="{link}"></iframe>'
    victim.visit(ELSEWHERE)
    frame = victim.page.frame_locator("iframe")
    assert frame.locator("form").count() == 0
    assert not world.is_consumed(link)
