import pytest

from haproxy.runtime.place import TcpPlace, UnixPlace


@pytest.mark.parametrize("path", ["", "haproxy.sock", "./x", "/a\nb", "/a\0", "/" + 107 * "x"])
def test_what_can_be_no_socket_s_path_is_refused(path: str) -> None:
    """A relative path, one with control characters and one that the kernel cannot take."""
    with pytest.raises(ValueError, match="path"):
        UnixPlace(path)


def test_a_path_may_have_107_bytes() -> None:
    """The limit is the kernel's."""
    assert UnixPlace("/" + 106 * "x")


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_has_limits(port: int) -> None:
    """The sentence has the number and both limits."""
    with pytest.raises(ValueError, match=f"port {port}: the limits are 1 and 65535"):
        TcpPlace("localhost", port)


def test_places_are_shown_as_they_are_written() -> None:
    """A person finds in a message what stands in the configuration."""
    assert str(UnixPlace("/run/haproxy/kat.sock")) == "unix:/run/haproxy/kat.sock"
    assert str(TcpPlace("edge1.example.org", 9999)) == "edge1.example.org:9999"
    assert str(TcpPlace("2001:db8::1", 9999)) == "[2001:db8::1]:9999"
