"""The one exception of the door: what a person gave cannot be used."""


class InputError(ValueError):
    """A file, photo, flag or model that cannot be used.

    The message is one line that names the file or key, what was found and what was expected; the command prints it
    and ends with exit code 2.
    """
