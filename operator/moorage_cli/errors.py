"""What can go wrong in a verb in a way that its user can mend."""


class CommandError(Exception):
    """The verb cannot do its work; the text says why and what to do, and is all that is printed."""
