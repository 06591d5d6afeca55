"""Templates: a short cut that must end exactly where the long way ends."""

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from spoa.spop.codec import Message, Notify, ShapedNotify, decode_notify
from spoa.spop.constants import DataType, FrameType
from spoa.spop.errors import ProtocolError
from spoa.spop.schema import TypedData
from spoa.spop.template import MAX_TEMPLATES, Templates, Wanted
from spoa.spop.value import Address, Value
from tests.support.frames import boolean, ids, message, string, typed
from tests.support.vectors import all_vectors

_SOME_NAMES = [b"acl", b"token", b"", b"a" * 250]
_NAMES = st.sampled_from(_SOME_NAMES)
_INTEGERS = [DataType.INT32, DataType.UINT32, DataType.INT64, DataType.UINT64]
_KINDS = ((DataType.STRING, DataType.BINARY), _INTEGERS, (DataType.IPV4, DataType.IPV6))
_WANTED: Wanted = [(name, kinds) for name in _SOME_NAMES for kinds in _KINDS]


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


def _taken(args: dict[bytes, Value]) -> list[object]:
    """Say what a template that has read the same would take."""
    return [_of_kind(args.get(name), kinds) for name, kinds in _WANTED]


def _of_kind(value: Value, kinds: Collection[int]) -> object:
    match value:
        case None | bool():
            return b""
        case int():
            return value % (1 << 64) if DataType.INT32 in kinds else b""
        case Address():
            return value if DataType.IPV4 in kinds else b""
        case _:
            return value if DataType.STRING in kinds else b""


def _plain(notify: Notify | ShapedNotify) -> tuple[bytes, list[tuple[bytes, list[object]]]]:
    if isinstance(notify, ShapedNotify):
        return notify.ids, [(notify.name, notify.values)]
    return notify.ids, [(told.name, _taken(told.args)) for told in notify.messages]


def _outcome(payload: bytes, templates: Templates | None) -> object:
    try:
        return _plain(decode_notify(payload, templates))
    except ProtocolError as error:
        return error.status


@given(st.lists(_payloads(), max_size=8))
def test_templates_change_nothing(payloads: list[bytes]) -> None:
    """With templates of whatever was read before, every payload reads as without them."""
    templates = Templates(_WANTED)
    for payload in payloads * 2:
        assert _outcome(payload, templates) == _outcome(payload, None)


@given(st.lists(_payloads(), min_size=1, max_size=3), st.data())
def test_templates_believe_no_broken_bytes(payloads: list[bytes], data: st.DataObject) -> None:
    """A payload cut or changed anywhere is refused or read as it is without templates."""
    templates = Templates(_WANTED)
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
    templates = Templates([(b"b", [DataType.STRING]), (b"a", [DataType.STRING])])
    first = ids(1) + message(b"m", (b"a", string(b"one")), (b"b", typed(DataType.NULL, None)))
    second = ids(2) + message(b"m", (b"a", string(b"two")), (b"b", typed(DataType.NULL, None)))
    assert isinstance(decode_notify(first, templates), Notify)
    told = decode_notify(second, templates)
    assert isinstance(told, ShapedNotify)
    assert (told.ids, told.name, told.values) == (ids(2), b"m", [b"", b"two"])


def test_only_what_is_wanted_is_taken() -> None:
    """Values that nobody asks for, or not of this type, are stepped over."""
    templates = Templates([(b"a", [DataType.IPV4]), (b"c", [DataType.STRING])])
    args = ((b"a", string(b"one")), (b"b", string(b"two")), (b"c", string(b"three")))
    payload = ids(1) + message(b"m", *args)
    decode_notify(payload, templates)
    told = decode_notify(payload, templates)
    assert isinstance(told, ShapedNotify)
    assert told.values == [b"", b"three"]


def test_names_that_repeat_are_not_learned() -> None:
    """Of arguments with the same name the last one counts, every time."""
    templates = Templates(_WANTED)
    payload = ids(1) + message(b"m", (b"a", string(b"x")), (b"a", typed(DataType.NULL, None)))
    for _ in range(2):
        assert decode_notify(payload, templates) == Notify(ids(1), [Message(b"m", {b"a": None})])


def test_shapes_are_forgotten() -> None:
    """However many shapes a peer sends, a bounded number is remembered, the last ones."""
    templates = Templates(_WANTED)
    payloads = [
        ids(1) + message(b"m%d" % n, (b"a", string(b"x"))) for n in range(MAX_TEMPLATES + 1)
    ]
    for payload in payloads:
        decode_notify(payload, templates)
    assert isinstance(decode_notify(payloads[-1], templates), ShapedNotify)
    assert isinstance(decode_notify(payloads[0], templates), Notify)


def test_real_haproxys_fit_templates() -> None:
    """What real HAProxy sends is read alike by templates that it taught."""
    frames = [frame for vector in all_vectors() for frame in vector.frames]
    notifies = [frame[9:] for frame in frames if frame[4] == FrameType.NOTIFY]
    assert notifies
    templates = Templates(_WANTED)
    for payload in notifies * 2:
        assert _outcome(payload, templates) == _outcome(payload, None)
