"""The one error that users see: bad input, told in a sentence."""


class InputError(ValueError):
    """Input that cannot be used: the message says what is wrong, what was expected and what to do.

    The command line prints the message alone and exits with code 2; anything else that escapes
    is a fault of ours and keeps its traceback.
    """
