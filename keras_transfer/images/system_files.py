"""Files and folders that operating systems, network storage and photo programs leave in folders."""

from collections.abc import Mapping

from keras_transfer.utils.console import in_line

# Where the name does not begin with a dot, which hides it. Upper and lower case do not matter.
_NAMES = (
    *("@__thumb", "@Recycle"),  # QNAP
    # Synology: thumbnails, as @eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg
    *("@eaDir", "@sharebin", "@SynoResource", "@tmp", "SYNOINDEX_MEDIA_INFO"),
    *("@Recently-Snapshot", "#recycle", "#snapshot", "lost+found", "Network Trash Folder"),
    *("$RECYCLE.BIN", "desktop.ini", "ehthumbs.db", "ehthumbs_vista.db", "Thumbs.db"),
    *("System Volume Information", "LOST.DIR"),
    *("__MACOSX", "Desktop DB", "Desktop DF", "Icon\r", "Temporary Items"),
    *("__pycache__", "_vti_cnf", "CACHEDIR.TAG", "Picasa.ini", "ZbThumbnail.info"),
    *(f"FOUND.{number:03}" for number in range(10)),  # of a repaired disk
)
_BY_NAME = {name.lower(): name.strip() for name in _NAMES}
_BEGINNINGS = ("SYNOFILE_THUMB_", "SYNOPHOTO_", "SYNOVIDEO_")
_ENDINGS = ("@SynoEAStream", "@SynoResource")


def kind_of(name: str) -> str | None:
    """Returns the name to count a hidden or system file under; `None` for any other file.

    Args:
        name: The name of a file or folder, without the folder that it is in.

    Example:
        >>> kind_of("SYNOPHOTO_THUMB_M.jpg"), kind_of("._1.jpg"), kind_of("1.jpg")
        ("SYNOPHOTO_*", "._*", None)
    """
    if name.startswith("."):
        return "._*" if name.startswith("._") else name  # those of macOS, one for each file
    lower = name.lower()
    for text in _BEGINNINGS:
        if lower.startswith(text.lower()):
            return f"{text}*"
    for text in _ENDINGS:
        if lower.endswith(text.lower()):
            return f"*{text}"
    return _BY_NAME.get(lower)


def counted(counts: Mapping[str, int], most: int = 6) -> str:
    """Returns counts as text, the largest first; those beyond the first few as their sum.

    Example:
        >>> counted({"": 1, ".txt": 20})
        ".txt 20, no suffix 1"
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{in_line(name) or 'no suffix'} {count}" for name, count in ranked[:most]]
    if len(ranked) > most:
        shown.append(f"others {sum(count for _, count in ranked[most:])}")
    return ", ".join(shown)
