"""Store URLs in the configuration: what is shown of one, and what never is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoa.config.storeurl import HIDDEN, check_store_url, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        ("rediss://u:hunter2@h:1/2", "rediss://***@h:1/2"),
        ("unix://:hunter2@/run/s?db=1", "unix://***@/run/s"),
        (
            "rediss+sentinel://u:hunter2@a,[::1]:2/my-tokens/3?sentinel_password=hunter2",
            "rediss+sentinel://***@a,[::1]:2/my-tokens/3",
        ),
        ("redis+cluster://u:hunter2@a:1,b:2", "redis+cluster://***@a:1,b:2"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    """The place of a store is shown, its credentials and options are not."""
    assert without_password(url) == repr(shown)


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://a,hunter2:x",
        "redis+cluster://u:hunter2,b:1",
        "redis+sentinel://u:hunter2/tokens",
        "redis+sentinel://a/hun ter2",
        "redis+sentinel://u:hun@ter2@a/tokens/x",
        "redis+sentinel://a/tokens?sentinel_password=hunt@er2hunter2",
        "redisss://hunter2@a",
        "redis+other://hunter2@a",
        "unix+cluster://:hunter2@/s",
    ],
)
def test_what_is_hidden(url: str) -> None:
    """Of what is not understood nothing is shown: it may be a password in the wrong place."""
    assert without_password(url) == HIDDEN


@given(
    secret=st.text("abcxyz:%@,[]", min_size=1),
    scheme=st.sampled_from(["redis", "rediss+sentinel", "redis+cluster", "unix"]),
    place=st.sampled_from(["h", "a:1,b:2", "a/tokens/1", "/run/s", ""]),
)
def test_no_secret_before_the_at_is_shown(secret: str, scheme: str, place: str) -> None:
    """Whatever the password is made of, its place is taken by stars."""
    shown = without_password(f"{scheme}://user:Q{secret}Q@{place}")
    assert "Q" not in shown


def test_embedded_is_named_with_the_others() -> None:
    """What has no known form is told about the private Redis, too."""
    check_store_url("embedded")
    with pytest.raises(ValueError, match=r'^must be "embedded", redis://.*cluster://') as caught:
        check_store_url("embeded")
    assert caught.value.__suppress_context__
