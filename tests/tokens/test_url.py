"""URLs of stores: what they name, and that no mistake in one is told with its password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokens.store.place import Place
from tokens.store.url import (
    ClusterUrl,
    Host,
    Login,
    NoStoreUrl,
    SentinelUrl,
    ServerUrl,
    StoreUrl,
    keys_per_call,
    parse_store_url,
)

ALICE = Login("alice", "p@ss")
A, B = Host("a", 7000), Host("b", 6379)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://a", ServerUrl(Host("a", 6379))),
        ("redis://a/", ServerUrl(Host("a", 6379))),
        ("redis://a:7000/3", ServerUrl(A, db=3)),
        ("redis://alice:p%40ss@a:7000", ServerUrl(A, login=ALICE)),
        ("redis://:p%40ss@a:7000", ServerUrl(A, login=Login(None, "p@ss"))),
        ("redis://[::1]:7000", ServerUrl(Host("::1", 7000))),
        ("rediss://a:7000", ServerUrl(A, is_tls=True)),
        ("unix:///run/r.sock", ServerUrl(Host("localhost", 0), "/run/r.sock")),
        (
            "unix://alice:p%40ss@/my%20run/r.sock?db=2",
            ServerUrl(Host("localhost", 0), "/my run/r.sock", ALICE, 2),
        ),
        ("redis+sentinel://a/tokens", SentinelUrl((Host("a", 26379),), "tokens")),
        (
            "rediss+sentinel://alice:p%40ss@a:7000,b/x.y-z_1/2?sentinel_user=bob&sentinel_password=%26",
            SentinelUrl((A, Host("b", 26379)), "x.y-z_1", ALICE, Login("bob", "&"), 2, is_tls=True),
        ),
        (
            "redis+sentinel://a:7000/tokens?sentinel_password=x",
            SentinelUrl((A,), "tokens", sentinel_login=Login(None, "x")),
        ),
        ("redis+cluster://a:7000,b", ClusterUrl((A, B))),
        ("redis+cluster://[::1]:7000,b/0", ClusterUrl((Host("::1", 7000), B))),
        ("rediss+cluster://alice:p%40ss@a:7000", ClusterUrl((A,), ALICE, is_tls=True)),
    ],
)
def test_what_a_url_names(url: str, named: StoreUrl) -> None:
    """Each form is read into its parts, unescaped."""
    assert parse_store_url(url) == named


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "redis://",
        "redis:///0",
        "redisss://a",
        "redis+sentinels://a/x",
        "redis+://a",
        "+cluster://a",
        "unix+cluster:///s",
        "unix://relative.sock",
        "unix:///",
        "REDIS://a",
        "http://a",
        "redis+cluster://",
        "redis+sentinel:///tokens",
    ],
)
def test_what_names_no_store(url: str) -> None:
    """What has none of the forms is told all of them."""
    with pytest.raises(NoStoreUrl, match=r"must be redis://.*unix://.*sentinel://.*cluster://"):
        parse_store_url(url)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://hunter2:port", "host or its port"),
        ("redis://[::1", "host or its port"),
        ("redis://::1", "host or its port"),
        ("redis://a:65536", "host or its port"),
        ("redis://a:0", "port 0"),
        ("redis://a..b", "is no host name"),
        ("redis://a%2e%2eb", "is no host name"),
        ("redis://a%00b", "must be printable"),
        (f"redis://{'a' * 64}.org", "is no host name"),
        ("redis://a,b", "several hosts"),
        ("redis://a/one", "database"),
        ("redis://a/12345", "database"),
        ("redis://a/1/2", "database"),
        ("redis://a?db=1", "takes none"),
        ("redis://hunter2@a", "user without a password"),
        ("redis://hunter2:@a", "user without a password"),
        ("redis://@a", "user without a password"),
        ("redis://:hun#ter2@a", "has a #"),
        ("redis://:hun/ter2@a", "host or its port"),
        ("redis://:hun?ter2@a", "option"),
        ("unix:///s?timeout=1", "takes db"),
        ("unix:///s?db=1&db=2", "one twice"),
        ("unix:///s?db=x", "database"),
        ("unix:///a%00b", "not printable"),
        ("unix:///" + "a" * 107, "longer than 107"),
        ("redis+sentinel://a", "names no service"),
        ("redis+sentinel://a/", "names no service"),
        ("redis+sentinel://a/my%20tokens", "names no service"),
        ("redis+sentinel://a/tokens/x", "database"),
        ("redis+sentinel://a,,b/tokens", "host or its port"),
        ("redis+sentinel://a/tokens?password=hunter2", "takes sentinel_user and sentinel_pass"),
        ("redis+sentinel://a/tokens?sentinel_user=hunter2", "without a sentinel_password"),
        ("redis+cluster://a/1", "a cluster has none but 0"),
        ("redis+cluster://a,b:hunter2", "host or its port"),
        ("redis+cluster://" + ",".join(["a"] * 33), "33 hosts, 32 are allowed"),
    ],
)
def test_what_is_wrong_is_said(url: str, sentence: str) -> None:
    """A mistake is a sentence about its part of the URL, and quotes nothing of it."""
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_store_url(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text() | st.text(alphabet="redis+cluntx:/@?#[],.%0=&").map("redis://{}".format))
def test_any_text_is_a_url_or_a_sentence(text: str) -> None:
    """Whatever stands there, the reader answers with a URL or a ValueError."""
    try:
        named = parse_store_url(text)
    except ValueError:
        return
    assert isinstance(named, StoreUrl)


def test_no_password_is_shown() -> None:
    """Neither repr nor text of what was read holds a password."""
    for url in (
        "redis://u:hunter2@a",
        "redis+sentinel://u:hunter2@a/tokens?sentinel_password=hunter3",
        "redis+cluster://u:hunter2@a",
    ):
        named = parse_store_url(url)
        assert "hunter" not in repr(named) + str(named)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://a:7000", "a:7000"),
        ("redis://[::1]:7000", "[::1]:7000"),
        ("unix:///run/r.sock", "/run/r.sock"),
        ("redis+sentinel://a:1,b:2/tokens", "tokens of the Sentinels a:1, b:2"),
        ("redis+cluster://a:1,b:2", "the cluster a:1, b:2"),
    ],
)
def test_how_a_store_is_called(url: str, place: str) -> None:
    """For people a store is its place, without scheme and credentials."""
    assert str(parse_store_url(url)) == place


def test_places() -> None:
    """Every server that a URL leads to is entered with the URL's credentials."""
    one = parse_store_url("redis://u:p@a:7000/3")
    watched = parse_store_url("redis+sentinel://u:p@s/tokens/3?sentinel_password=x")
    cluster = parse_store_url("redis+cluster://u:p@b")
    assert isinstance(one, ServerUrl)
    assert isinstance(watched, SentinelUrl)
    assert isinstance(cluster, ClusterUrl)
    expected = Place("a", 7000, None, "u", "p", 3, None)
    assert one.place(None) == watched.place(A, None) == expected
    of_cluster = Place("a", 7000, None, "u", "p", 0, None, is_in_cluster=True)
    assert cluster.place(A, None) == of_cluster


def test_one_key_per_call_in_a_cluster() -> None:
    """Only in a cluster each key goes in a call of its own."""
    urls = ["redis://a", "redis+sentinel://a/tokens", "redis+cluster://a"]
    assert [keys_per_call(parse_store_url(url), 128) for url in urls] == [128, 128, 1]
