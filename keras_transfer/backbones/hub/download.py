"""From a handle (an address, a folder, an archive) to a folder with a SavedModel."""

import errno
import functools
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_transfer.backbones.hub.archive import UnsafeArchive, unpack
from keras_transfer.backbones.hub.cache import cache_folder, cached
from keras_transfer.backbones.hub.files import GRAPH, DamagedModule, what_is_missing
from keras_transfer.utils.name_lists import some

_REMOTE = ("http://", "https://", "gs://")
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_TIMEOUT = 60.0  # seconds without a byte

# Parts of an address that say nothing of the network.
_COMMON_WORDS = re.compile(
    r"v?\d+|feature[-_]?vector|classification|variations?|versions?|frameworks?|models?|"
    r"tensorflow\d?|tf\d?|saved_?model|module|export|serving",
    re.IGNORECASE,
)


def is_handle(source: Any) -> bool:
    """Returns whether a source is the address, the folder or the archive of a module.

    A string without a slash is one only if it names an archive, or a folder with a SavedModel.
    """
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source)
    if text.startswith(_REMOTE) or text.endswith(_ARCHIVES) or not isinstance(source, str):
        return True
    return "/" in text or os.sep in text or (Path(text) / GRAPH).exists()


def is_remote(handle: str | os.PathLike[str]) -> bool:
    """Returns whether a handle is an address."""
    return os.fspath(handle).startswith(_REMOTE)


def name_of(handle: str | os.PathLike[str]) -> str:
    """Returns a name for the module that a handle stands for.

    Example:
        >>> name_of("https://tfhub.dev/google/imagenet/resnet_v1_152/feature_vector/5")
        'resnet_v1_152'
    """
    path = os.fspath(handle).split("?")[0].rstrip("/")
    for suffix in _ARCHIVES:
        path = path.removesuffix(suffix)
    parts = re.split(r"[/\\]", path.split("://")[-1])
    telling = [part for part in parts if part and not _COMMON_WORDS.fullmatch(part)]
    name = re.sub(r"\W+", "_", telling[-1] if telling else "").strip("_").lower()
    return name or "hub_module"


def folder_of(handle: str | os.PathLike[str], *, damage: str | None = None) -> Path:
    """Returns a folder with the complete SavedModel of a handle.

    Args:
        handle: The address of a module on tfhub.dev, Kaggle or any web server, which is fetched
            into the cache; a SavedModel folder; or a `.tar.gz` of one, which is unpacked there.
        damage: What is wrong with the files in the cache, if that is known; they are then fetched
            or unpacked again.

    Raises:
        ImportError: If the handle is an address, and `tensorflow_hub` cannot be imported.
        OSError: If the module cannot be had, or the cache is not safe. The message says what to do.
        ValueError: If the handle is the path of an unsafe archive.
    """
    if (place := _place(handle)) is not None:
        fill = functools.partial(_fill, handle, place=place)
        return cached(place, os.fspath(handle), fill, damage=damage)
    path = Path(handle).expanduser()
    if damage is not None:
        raise DamagedModule(f"{damage} Fetch or export {os.fspath(handle)!r} again.")
    if not path.is_dir():
        raise FileNotFoundError(
            f"{os.fspath(handle)!r} is no folder. Expected a SavedModel folder, a .tar.gz of one, "
            "or the address of a module, such as "
            "'https://tfhub.dev/google/imagenet/resnet_v1_152/feature_vector/5'."
        )
    if (problem := what_is_missing(path)) is not None:
        names = sorted(entry.name for entry in path.iterdir())
        raise DamagedModule(
            f"{os.fspath(handle)!r} is no complete SavedModel: {problem}. Expected {GRAPH} and "
            f"variables/. Found: {some(names, 8) or 'nothing'}."
        )
    return path


def _place(handle: str | os.PathLike[str]) -> Path | None:
    """Returns the folder of a handle in the cache; `None` for a folder, which is not copied."""
    text = os.fspath(handle)
    if is_remote(text):
        # tensorflow_hub's rule, so that modules that it has fetched are found.
        return cache_folder() / hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    path = Path(handle).expanduser()
    if not path.name.endswith(_ARCHIVES) or path.is_dir():
        return None
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Expected an archive of a SavedModel.")
    with path.open("rb") as file:
        return cache_folder() / hashlib.file_digest(file, "sha256").hexdigest()[:40]


def _fill(handle: str | os.PathLike[str], folder: Path, place: Path) -> None:
    """Unpacks or fetches the module of a handle into a folder."""
    text = os.fspath(handle)
    if not is_remote(text):
        with Path(handle).expanduser().open("rb") as file:
            unpack(file, folder, text)
        return
    try:
        with _opened(text) as stream:
            unpack(stream, folder, "what the server sends")
    except (UnsafeArchive, DamagedModule) as error:
        raise OSError(
            f"{text!r} cannot be fetched: {error} Look at the address in a browser."
        ) from error
    except urllib.error.HTTPError as error:
        raise OSError(
            f"{text!r} cannot be fetched: the server answers {error.code} {error.reason}. "
            "Expected the address of a module; look it up on the module's page."
        ) from error
    except (OSError, ValueError, http.client.HTTPException, tf.errors.OpError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        copy = f"its copy in {place} is damaged"
        if not os.path.lexists(place):
            copy = f"its copy is not in the cache folder {place.parent}"
        raise OSError(
            f"{text!r} cannot be fetched ({getattr(error, 'reason', None) or error}), and {copy}. "
            "Go online once, with TFHUB_CACHE_DIR set to a folder that lasts; or "
            f"{_by_hand(text)}, and give the path of that file as the source."
        ) from error


def _opened(handle: str) -> Any:
    """Opens an address as tensorflow_hub does, but without its unpacking, which has no limits."""
    if handle.startswith("gs://"):
        if not handle.endswith(_ARCHIVES):
            raise ValueError("expected an archive, .tar.gz, on gs://")
        return tf.io.gfile.GFile(handle, "rb")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old names in it, and in what it imports
            from tensorflow_hub.resolver import HttpResolverBase
    except ImportError as error:
        raise ImportError(
            f"tensorflow_hub, which fetches modules, cannot be imported ({error}). Run: pip "
            'install "tensorflow-hub>=0.16.1" tf-keras "setuptools<82" - or give the path of a '
            "SavedModel folder or .tar.gz, which need none of these."
        ) from error

    class Opener(HttpResolverBase):
        def __call__(self, handle: str) -> Any:
            address = self._append_format_query(handle, ("tf-hub-format", "compressed"))
            return urllib.request.urlopen(address, timeout=_TIMEOUT, context=self._context)

    return Opener()(handle)


def _by_hand(handle: str) -> str:
    if handle.startswith("gs://"):
        return "copy the archive with gsutil"
    return f"fetch it elsewhere, 'curl -L \"{_compressed(handle)}\" -o module.tar.gz'"


def _compressed(handle: str) -> str:
    """Returns the address under which tfhub.dev and Kaggle send an archive of a module."""
    return f"{handle}{'&' if '?' in handle else '?'}tf-hub-format=compressed"
