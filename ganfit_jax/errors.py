"""The one exception of the door: what a person gave cannot be used."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """A file, photo, flag or model that cannot be used.

    The message is one line that names the file or key, what was found and what was expected; the command prints it
    and ends with exit code 2.
    """


def complain(name: str, error: InputError | OSError) -> int:
    """Prints one line and returns the exit code: 2 for what the user can mend, 1 for a full disk and the like."""
    print(f"{name}: {error}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1


def one_line(main: Callable[[Any], None]) -> Callable[[Any], None]:
    """`main` of a runner, ending with one line on an `InputError` or `OSError` (`complain`)."""

    @functools.wraps(main)
    def run(arguments: Any) -> None:
        try:
            main(arguments)
        except (InputError, OSError) as error:
            sys.exit(complain(Path(sys.argv[0]).name, error))

    return run
