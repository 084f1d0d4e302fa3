"""Standard output for scripts: one JSON object and nothing else."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def only_json() -> Iterator[Callable[[str], None]]:
    """Sends all that is printed within a block to standard error, but for what it says itself.

    That holds for whatever libraries and child processes print, too.

    Returns:
        What puts a text on standard output.

    Example:
        >>> with only_json() as say:
        ...     print("Reading photos/")  # goes to standard error
        ...     say((output / "summary.json").read_text())
    """
    out = sys.stdout
    out.flush()
    kept = os.dup(1)

    def say(text: str) -> None:
        sys.stderr.flush()
        if _is_file_1(out):
            with os.fdopen(os.dup(kept), "w", encoding="utf-8") as file:
                file.write(text)
        else:  # someone has replaced sys.stdout, as tests do
            out.write(text)
            out.flush()

    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield say
    finally:
        out.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _is_file_1(out: object) -> bool:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        return out.fileno() == 1  # type: ignore[attr-defined]
    return False
