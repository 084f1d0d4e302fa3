"""Lists of names in messages, which stay short however many names there are."""

from collections.abc import Collection
from itertools import islice


def some(texts: Collection[object], most: int = 5) -> str:
    """Returns the first of some texts, and how many more there are.

    Args:
        texts: What is listed.
        most: How many of them at most. Default 5.

    Example:
        >>> some(["cat", "dog", "owl"], most=2)
        'cat, dog and 1 more'
    """
    listed = ", ".join(map(str, islice(texts, most)))
    return f"{listed} and {len(texts) - most:,} more" if len(texts) > most else listed
