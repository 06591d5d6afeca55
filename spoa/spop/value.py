"""What an argument holds. Pure."""


class Address(bytes):
    """An IPV4 or IPV6 value: 4 or 16 bytes in network order. STRING and BINARY are plain bytes."""

    __slots__ = ()


Value = None | bool | int | bytes | Address
"""What an argument holds. The wire's four integer types are all `int` here."""
