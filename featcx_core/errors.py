"""The one kind of error that a user can mend."""


class InputError(ValueError):
    """Bad input, told in one or two sentences that say what to do; the command line exits with code 2."""
