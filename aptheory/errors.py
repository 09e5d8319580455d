"""The one error that users see: bad input, told in a sentence."""

LONGEST = 2000
"""Letters of a message: what a hostile file holds is quoted, but not without end."""


class InputError(ValueError):
    """Input that cannot be used: the message says what is wrong, what was expected and what to do.

    The command line prints the message alone and exits with code 2; anything else that escapes
    is a fault of ours and keeps its traceback. The middle of an endless message is left out, a
    sentence that lacks its full stop gets one, and what a terminal would obey is written out.
    """

    def __init__(self, message: object = "") -> None:
        text = shown_plainly(str(message), lines=True)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST - 500]} … {text[-490:]}"
        if text and not text.rstrip("\"')").endswith((".", "?", "!")):
            text += "."
        super().__init__(text)


def described(error: BaseException) -> str:
    """An error's kind and all that it says, where the class of a user's can say it."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def reason_of(error: BaseException, *, kind: bool = False) -> str:
    """What an error of somebody else says, for the brackets of a sentence of ours: its first line,
    with the second where the first only announces it; the error's kind where it says nothing, or
    in front where ``kind`` asks for it."""
    name = type(error).__name__
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # a class of the user's that cannot even say what it is
        lines = []
    if not lines:
        return name
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{name}: {first.rstrip('.:')}" if kind else first.rstrip(".:")


def shown_plainly(text: str, *, lines: bool = False) -> str:
    """A text whose letters a terminal shows, and none that it would obey: names of files and
    classes may hold such. With ``lines`` it keeps its lines."""
    kept = "\n" if lines else ""
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)
