"""Templates: a short cut that must end exactly where the long way ends."""

from hypothesis import given
from hypothesis import strategies as st

from spoa.spop.codec import Message, Notify, Shaped, decode_notify
from spoa.spop.constants import DataType, FrameType
from spoa.spop.errors import ProtocolError
from spoa.spop.schema import TypedData
from spoa.spop.template import MAX_TEMPLATES, Templates
from tests.support.frames import boolean, ids, message, string, typed
from tests.support.vectors import all_vectors

_NAMES = st.sampled_from([b"acl", b"token", b"", b"a" * 250])
_INTEGERS = [DataType.INT32, DataType.UINT32, DataType.INT64, DataType.UINT64]


def _values() -> st.SearchStrategy[TypedData]:
    texts = st.binary(max_size=20) | st.binary(min_size=238, max_size=242)
    return st.one_of(
        texts.map(string),
        texts.map(lambda text: typed(DataType.BINARY, text)),
        st.builds(typed, st.sampled_from(_INTEGERS), st.integers(0, (1 << 64) - 1)),
        st.binary(min_size=4, max_size=4).map(lambda value: typed(DataType.IPV4, value)),
        st.binary(min_size=16, max_size=16).map(lambda value: typed(DataType.IPV6, value)),
        st.booleans().map(lambda value: boolean(value=value)),
        st.just(typed(DataType.NULL, None)),
    )


def _payloads() -> st.SearchStrategy[bytes]:
    """Give messages of few shapes, so that templates fit, nearly fit and do not fit."""
    args = st.lists(st.tuples(_NAMES, _values()), max_size=4)
    messages = st.builds(lambda args: message(b"check-http", *args), args)
    lists = st.lists(messages, min_size=1, max_size=2).map(b"".join)
    return st.builds(lambda stream, told: ids(stream) + told, st.integers(0, 300), lists)


def _plain(notify: Notify) -> tuple[bytes, list[tuple[bytes, object]]]:
    return notify.ids, [(told.name, told.args) for told in notify.messages]


def _outcome(payload: bytes, templates: Templates | None) -> object:
    try:
        return _plain(decode_notify(payload, templates))
    except ProtocolError as error:
        return error.status


@given(st.lists(_payloads(), max_size=8))
def test_templates_change_nothing(payloads: list[bytes]) -> None:
    """With templates of whatever was read before, every payload reads as without them."""
    templates = Templates()
    for payload in payloads * 2:
        assert _outcome(payload, templates) == _outcome(payload, None)


@given(st.lists(_payloads(), min_size=1, max_size=3), st.data())
def test_templates_believe_no_broken_bytes(payloads: list[bytes], data: st.DataObject) -> None:
    """A payload cut or changed anywhere is refused or read as it is without templates."""
    templates = Templates()
    for payload in payloads:
        _outcome(payload, templates)
    broken = bytearray(data.draw(st.sampled_from(payloads)))
    if data.draw(st.booleans()):
        del broken[data.draw(st.integers(0, len(broken))) :]
    else:
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    assert _outcome(bytes(broken), templates) == _outcome(bytes(broken), None)


def test_the_second_of_a_shape_is_read_by_template() -> None:
    """What HAProxy sends over and over is decoded the long way once only."""
    templates = Templates()
    first = ids(1) + message(b"m", (b"a", string(b"one")), (b"b", typed(DataType.NULL, None)))
    second = ids(2) + message(b"m", (b"a", string(b"two")), (b"b", typed(DataType.NULL, None)))
    assert isinstance(decode_notify(first, templates).messages[0], Message)
    (told,) = decode_notify(second, templates).messages
    assert isinstance(told, Shaped)
    assert told.args == {b"a": b"two", b"b": None}


def test_names_that_repeat_are_not_learned() -> None:
    """Of arguments with the same name the last one counts, every time."""
    templates = Templates()
    payload = ids(1) + message(b"m", (b"a", string(b"x")), (b"a", typed(DataType.NULL, None)))
    for _ in range(2):
        assert decode_notify(payload, templates).messages[0].args == {b"a": None}


def test_shapes_are_forgotten() -> None:
    """However many shapes a peer sends, a bounded number is remembered, the last ones."""
    templates = Templates()
    payloads = [
        ids(1) + message(b"m%d" % n, (b"a", string(b"x"))) for n in range(MAX_TEMPLATES + 1)
    ]
    for payload in payloads:
        decode_notify(payload, templates)
    assert isinstance(decode_notify(payloads[-1], templates).messages[0], Shaped)
    assert isinstance(decode_notify(payloads[0], templates).messages[0], Message)


def test_real_haproxys_fit_templates() -> None:
    """What real HAProxy sends is read alike by templates that it taught."""
    frames = [frame for vector in all_vectors() for frame in vector.frames]
    notifies = [frame[9:] for frame in frames if frame[4] == FrameType.NOTIFY]
    assert notifies
    templates = Templates()
    for payload in notifies * 2:
        assert _outcome(payload, templates) == _outcome(payload, None)
