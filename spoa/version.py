"""Which release this is."""

from importlib import metadata


def version() -> str:
    """Tell the installed release; a checkout that was never installed has none."""
    try:
        return metadata.version("kat-spoa")
    except metadata.PackageNotFoundError:
        return "0+checkout"
