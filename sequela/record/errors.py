"""The one error that people are meant to see."""


class InputError(ValueError):
    """Something the user can mend.

    The message is one sentence that names the file, the row or column, what is wrong and what to do. The
    command line prints it on stderr and exits with 2; every other exception is a defect of ours.
    """
