"""The one exception meant for users, and suggestions for misspelled words."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A problem that the user can fix.

    The message is one sentence: it names the file and the row or column, says what is wrong, and what to do about it.
    The command line prints it to stderr and exits with code 2. Every other exception is a bug of ours.
    """

    def __init__(self, message: str) -> None:
        """Join the lines of `message`: a quoted name or a library's own message may span several."""
        super().__init__(" ".join(message.splitlines()))


def closest(word: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """At most `most` distinct known words similar to `word`, best first.

    Args:
        cutoff: the least similarity (Ratcliff and Obershelp's ratio, in [0, 1]).

    >>> closest("nafdl", ["mimic4", "nafld"])
    ['nafld']
    """
    return difflib.get_close_matches(word, list(dict.fromkeys(known)), n=most, cutoff=cutoff)


def nearest(word: str, known: Iterable[str]) -> str:
    """The suggestion " (did you mean 'X'?)" for an error message; empty if no known word is similar to `word`."""
    similar = closest(word, known)
    return f" (did you mean '{similar[0]}'?)" if similar else ""
