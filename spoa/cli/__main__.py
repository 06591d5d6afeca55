"""`python -m spoa.cli`, for those who have no `kat` on their PATH."""

from spoa.cli import main

# Every worker is spawned with this module as its main one: importing it must do nothing.
if __name__ == "__main__":
    main()
