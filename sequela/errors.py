"""The one error that people are meant to see, and a help for writing it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user can mend.

    The message is one sentence that names the file, the row or column, what is wrong and what to do. The
    command line prints it on stderr and exits with 2; every other exception is a defect of ours.
    """

    def __init__(self, message: str) -> None:
        """`message` becomes one line: what it quotes (a name, a library's words) may hold several."""
        super().__init__(" ".join(message.splitlines()))


def nearest(word: str, known: Iterable[str]) -> str:
    """Words for a message: " (did you mean 'X'?)" where a known word is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
