"""Hypothesis strategies for the values of the Redis contract."""

from hypothesis import strategies as st

from tokens.record import MAX_INTEGER, MAX_TTL_S, Record, SessionTerms

_CONTROLS = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0))))

_name_characters = st.characters(exclude_categories=["Cs"], exclude_characters=_CONTROLS + ",")
names = st.text(_name_characters, min_size=1, max_size=32).filter(  # 4 bytes each at most
    lambda name: name == name.strip()
)
acls = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
sources = st.sampled_from(
    ["192.0.2.7", "192.0.2.0/24", "192.0.0.0/16", "10.0.0.0/8", "2001:db8::1", "2001:db8::/48"]
)
hosts = st.from_regex(r"[a-z0-9_.-]{1,30}", fullmatch=True)
methods = st.sampled_from(["GET", "HEAD", "POST", "PROPFIND", "M-SEARCH"])
paths = st.from_regex(r"(/[a-z0-9_-]{1,8}){1,4}/?", fullmatch=True)
nonces = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
seconds = st.integers(1, MAX_INTEGER)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
_finite_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def _some(entries: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.just(()) | st.lists(entries, min_size=1, max_size=3).map(tuple)


def records() -> st.SearchStrategy[Record]:
    """Draw records that the contract allows."""
    return st.builds(
        Record,
        sub=names,
        acl=st.lists(acls, min_size=1, max_size=3).map(tuple),
        ttl_s=st.integers(1, MAX_TTL_S),
        groups=_some(names),
        src=_some(sources),
        host=_some(hosts),
        method=_some(methods),
        path=_some(paths),
        nbf_ms=st.none() | st.integers(0, MAX_INTEGER),
        session=st.none()
        | st.just(value=False)
        | st.builds(SessionTerms, seconds, st.none() | seconds),
        nonce=st.none() | nonces,
        meta=st.none() | st.dictionaries(names, _finite_values, max_size=3),
    )
