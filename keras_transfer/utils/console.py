"""Lines on standard output, whatever letters its encoding has."""

import sys


def say(text: str) -> None:
    r"""Prints a line at once; letters that standard output cannot encode are escaped.

    Names of files and classes may hold any letter, and bytes that are none, while standard output
    may be a file in the encoding cp1252 or ascii.

    Example:
        >>> say("Reading photos/犬")  # under PYTHONIOENCODING=ascii
        Reading photos/\u72ac
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def escape_all() -> None:
    """Makes standard output and error escape letters that they cannot encode, as `say` does.

    For commands, which own both streams.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a test or a notebook has replaced it
            stream.reconfigure(errors="backslashreplace")


def in_line(text: str) -> str:
    """Returns a text with escapes for line breaks and other letters that move the cursor."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
