"""Archives of SavedModels, unpacked so that nothing is written outside the folder meant for it."""

import atexit
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from keras_transfer.saved_model_files import GRAPH, DamagedModule


def unpack(archive: Path) -> Path:
    """Unpacks a `.tar.gz` into a folder that lasts as long as the process.

    Returns:
        The folder with the SavedModel: the archive's top, or the one folder in it.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedModule: If it is no archive, or ends too early.
        ValueError: If a member is a link, a device, or lies outside. Nothing is written then.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"{archive} does not exist. Expected an archive of a SavedModel.")
    home = Path(tempfile.mkdtemp(prefix="keras_transfer_"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            _check_members(members, archive, home)
            for member in members:
                _write(tar, member, home / "unpacking")
    except (tarfile.TarError, EOFError, OSError) as error:
        shutil.rmtree(home, ignore_errors=True)
        raise DamagedModule(
            f"{archive} is no complete archive ({error}). Expected a .tar.gz of a SavedModel "
            "folder: fetch it again."
        ) from error
    except ValueError:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return _top((home / "unpacking").rename(home / "module"))


def _check_members(members: list[tarfile.TarInfo], archive: Path, home: Path) -> None:
    for member in members:
        path = PurePosixPath(member.name)
        inside = not (path.is_absolute() or ".." in path.parts or "\\" in member.name)
        if not (inside and (member.isfile() or member.isdir())):
            kind = "lies outside of it" if not inside else "is a link or a device"
            raise ValueError(
                f"Refused to unpack {archive}: its member {member.name!r} {kind}. Expected plain "
                "files and folders. Nothing was written; do not trust where it came from."
            )
    needed, free = sum(member.size for member in members), shutil.disk_usage(home).free
    if needed > free:
        raise ValueError(
            f"Refused to unpack {archive}: it takes {needed:,} bytes, and {home.parent} has "
            f"{free:,} free. Make room, or set TMPDIR to another disk."
        )


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = folder.joinpath(*PurePosixPath(member.name).parts)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    if content is not None:
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file)


def _top(folder: Path) -> Path:
    entries = list(folder.iterdir())
    only = entries[0] if len(entries) == 1 else folder
    return folder if (folder / GRAPH).exists() or not only.is_dir() else only
