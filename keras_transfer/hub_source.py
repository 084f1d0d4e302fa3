"""From a handle (an address, a folder, an archive) to a folder with a SavedModel."""

import os
import re
import sys
import types
import urllib.error
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_transfer.hub_cache import CachedModule
from keras_transfer.saved_model_files import GRAPH, DamagedModule, what_is_missing
from keras_transfer.tar_folder import unpack

_REMOTE = ("http://", "https://", "gs://")
_ARCHIVES = (".tar.gz", ".tgz", ".tar")

# Parts of an address that say nothing of the network.
_COMMON_WORDS = re.compile(
    r"v?\d+|feature[-_]?vector|classification|variations?|versions?|frameworks?|models?|"
    r"tensorflow\d?|tf\d?|saved_?model|module|unpacking|export|serving",
    re.IGNORECASE,
)


def is_handle(source: Any) -> bool:
    """Whether a source is the address, the folder or the archive of a module.

    A string without a slash is one only if it names an archive, or a folder with a SavedModel.
    """
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source)
    if text.startswith(_REMOTE) or text.endswith(_ARCHIVES) or not isinstance(source, str):
        return True
    return "/" in text or os.sep in text or (Path(text) / GRAPH).exists()


def is_remote(handle: str | os.PathLike[str]) -> bool:
    """Whether a handle is an address."""
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


def folder_of(handle: str | os.PathLike[str]) -> Path:
    """Returns a folder with the complete SavedModel of a handle.

    Args:
        handle: The address of a module on tfhub.dev, Kaggle or any web server, which the library
            `tensorflow_hub` fetches into its cache; a SavedModel folder; or a `.tar.gz` of one.

    Raises:
        ImportError: If the handle is an address, and `tensorflow_hub` cannot be imported.
        OSError: If the module cannot be had. The message says what to do.
        ValueError: If the handle stands for something else, or for an unsafe archive.
    """
    if is_remote(handle):
        return _fetched(os.fspath(handle))
    path = Path(handle).expanduser()
    if path.name.endswith(_ARCHIVES) and not path.is_dir():
        path = unpack(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{os.fspath(handle)!r} is no folder. Expected a SavedModel folder, a .tar.gz of one, "
            "or the address of a module, such as "
            "'https://tfhub.dev/google/imagenet/resnet_v1_152/feature_vector/5'."
        )
    if (problem := what_is_missing(path)) is not None:
        found = sorted(entry.name for entry in path.iterdir())[:8]
        raise DamagedModule(
            f"{os.fspath(handle)!r} is no complete SavedModel: {problem}. Expected {GRAPH} and "
            f"variables/. Found: {', '.join(found) or 'nothing'}."
        )
    return path


def fetched_again(handle: str | os.PathLike[str], problem: str) -> Path:
    """Returns the folder of an address whose files turned out to be damaged, fetched once more.

    Raises:
        DamagedModule: If the handle is no address, or the cache is none of tensorflow_hub's.
    """
    if not is_remote(handle):
        raise DamagedModule(f"{problem} Fetch or export {os.fspath(handle)!r} again.")
    hub = _import_tensorflow_hub()
    cached = CachedModule(hub, os.fspath(handle))
    if not cached.folder.is_dir():
        raise DamagedModule(problem)
    with _one_at_a_time(cached), cached.set_aside(problem):
        return _resolved(hub, cached, os.fspath(handle))


def _fetched(handle: str) -> Path:
    hub = _import_tensorflow_hub()
    cached = CachedModule(hub, handle)
    if cached.is_complete or not _is_kept_in_cache(hub, handle):
        return _resolved(hub, cached, handle)
    with _one_at_a_time(cached):
        cached.remove_stale_lock()
        if cached.problem is None:
            _resolved(hub, cached, handle)
        if cached.problem is not None:  # of an old copy, or of a download that broke off
            with cached.set_aside(cached.problem):
                _resolved(hub, cached, handle)
    if cached.problem is not None:
        raise DamagedModule(
            f"What {handle!r} gives is no complete SavedModel: {cached.problem}. It lies in "
            f"{cached.folder}; delete that, or look there for what it is."
        )
    return cached.folder


def _is_kept_in_cache(hub: Any, handle: str) -> bool:
    """Whether tensorflow_hub keeps a copy; told to, it reads from Google's storage each time."""
    uncompressed = hub.resolver.model_load_format() == "UNCOMPRESSED"
    return handle.endswith(_ARCHIVES) if handle.startswith("gs://") else not uncompressed


def _one_at_a_time(cached: CachedModule) -> Any:
    """Keeps another process from clearing away what this one has just fetched."""
    from filelock import FileLock

    try:
        cached.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The cache folder {cached.cache} cannot be made ({error}). Set TFHUB_CACHE_DIR to "
            "another one."
        ) from error
    return FileLock(f"{cached.folder}.healing")


def _resolved(hub: Any, cached: CachedModule, handle: str) -> Path:
    try:
        return Path(hub.resolve(handle))
    except urllib.error.HTTPError as error:
        raise OSError(
            f"{handle!r} cannot be fetched: the server answers {error.code} {error.reason}. "
            "Expected the address of a module; look it up on the module's page."
        ) from error
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        if (wrong := _wrong_answer(error)) is not None:
            raise OSError(
                f"{handle!r} cannot be fetched: what the server sends {wrong} ({error}). "
                "Expected a .tar.gz of a SavedModel folder. Nothing of it was kept."
            ) from error
        reason = getattr(error, "reason", None) or error
        raise OSError(
            f"{handle!r} cannot be fetched ({reason}), and its copy is not in the cache folder "
            f"{cached.cache}. Go online once, with TFHUB_CACHE_DIR set to a folder that lasts; or "
            f"fetch it elsewhere, 'curl -L \"{_compressed(handle)}\" -o module.tar.gz', and give "
            "the path of that file as the source."
        ) from error


def _wrong_answer(error: BaseException) -> str | None:
    """What is wrong with an archive that tensorflow_hub refused, told by its messages."""
    if re.match("Relative path .* is invalid|Unexpected object type in tar", str(error)):
        return "is refused, as it would write outside of its folder: do not trust where it is from"
    if "does not appear to be a valid module" in str(error):
        return "is no archive, or is cut short: try again, or look at the address in a browser"
    return None


def _compressed(handle: str) -> str:
    return f"{handle}{'&' if '?' in handle else '?'}tf-hub-format=compressed"


def _import_tensorflow_hub() -> Any:
    """Imports the library, which asks setuptools for its own version of `pkg_resources`.

    setuptools has it no longer since 82 (tensorflow/hub#934). All that is wanted of it is a
    comparison of versions, which `packaging` knows: it stands in while the library is imported.
    """
    name, stand_in = "pkg_resources", types.ModuleType("pkg_resources")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old names in it, and in what it imports
            if "tensorflow_hub" not in sys.modules and not _has(name):
                from packaging.version import parse

                stand_in.parse_version = parse  # type: ignore[attr-defined]
                sys.modules[name] = stand_in
            import tensorflow_hub
    except ImportError as error:
        raise ImportError(
            f"tensorflow_hub, which fetches modules, cannot be imported ({error}). Run: pip "
            'install "tensorflow-hub>=0.16.1" tf-keras "setuptools<82" - or give the path of a '
            "SavedModel folder or .tar.gz, which need none of these."
        ) from error
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
    return tensorflow_hub


def _has(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True
