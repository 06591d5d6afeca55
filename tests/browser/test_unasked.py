"""What a browser fetches by itself consumes nothing."""

import pytest

from tests.browser.elsewhere import ELSEWHERE, SAME_SITE, Elsewhere
from tests.browser.person import Meet
from tests.browser.world import WIKI, World
from tests.e2e.scene import until
from tests.support.haproxy import Haproxy

RULES = """<script type="speculationrules">
    {"ACTION": [{"source": "list", "urls": ["LINK"], "eagerness": "immediate"}]}
    </script>"""

UNASKED = {
    "prefetch": (ELSEWHERE, '<link rel="prefetch" href="LINK">'),
    "speculation": (SAME_SITE, RULES.replace("ACTION", "prefetch")),
    "prerender": (SAME_SITE, RULES.replace("ACTION", "prerender")),
    "picture": (ELSEWHERE, '<img src="LINK" alt="">'),
    "frame": (ELSEWHERE, '<iframe src="LINK"></iframe>'),
    "script": (ELSEWHERE, '<script src="LINK"></script>'),
    "fetch": (ELSEWHERE, '<script>fetch("LINK", {mode: "no-cors"})</script>'),
}
"""Whose page says what."""


@pytest.mark.parametrize("kind", UNASKED)
def test_what_a_page_fetches_consumes_nothing(
    world: World, door: Haproxy, other_site: Elsewhere, meet: Meet, kind: str
) -> None:
    """It reaches HAProxy, gets 403 and leaves the token whole: the visit after it opens."""
    victim = meet(door)
    link = world.link(f"unasked-{kind}")
    url, page = UNASKED[kind]
    other_site.page = page.replace("LINK", link)
    victim.visit(url)
    until(lambda: f'"/unasked-{kind}"' in door.log())
    assert not world.is_consumed(link)
    lines = [line for line in door.log().splitlines() if f'"/unasked-{kind}"' in line]
    assert [line for line in lines if " 403 " not in line] == []
    assert victim.cookie() is None
    assert victim.visit(link).url == f"{WIKI}unasked-{kind}"
    assert world.is_consumed(link)
