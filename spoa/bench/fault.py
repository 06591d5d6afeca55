"""What ends the benchmark before its end."""


class Fault(Exception):
    """It cannot go on. The message is for the operator: a sentence, perhaps what a server said."""
