"""Torch pickles of weights, read without torch and without running what a file asks for."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short  # a nested list of few bytes can have a text of gigabytes
from typing import Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGE_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
_MOST_AXES = 32
# Torch's convention for published weights: the name ends with the first digits of the SHA-256.
_DIGITS = re.compile(r"-([0-9a-f]{8,64})\.pth")


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that follows the pickles; tensors are views of it."""

    key: str
    kind: str
    length: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_STORAGE_DTYPES[self.kind])


@dataclass(frozen=True)
class _View:
    """What a tensor is before its storage is read; unchecked, as the file has it."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _TensorUnpickler(pickle.Unpickler):
    """Builds nothing but plain containers, `_Storage` and `_View`: refuses any other global."""

    def find_class(self, module: str, name: str) -> Any:
        # Nothing else can be reached from these values: strings are immutable, and the functions
        # are new each time, so a BUILD opcode changes only its own.
        if (module, name) == ("collections", "OrderedDict"):
            return lambda: OrderedDict()  # of no arguments, which it would copy each time
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _new_view_function()
        if module == "torch" and name in _STORAGE_DTYPES:
            return name
        raise pickle.UnpicklingError(f"it asks for the global {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(length), None) if (
                kind in _STORAGE_DTYPES and length >= 0
            ):
                return _Storage(key, kind, length)
        raise pickle.UnpicklingError(f"it has the persistent id {short(pid)}")


def _new_view_function() -> Callable[..., _View]:
    def view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _View:
        return _View(storage, offset, size, stride)

    return view


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a state dict that `torch.save` wrote in its legacy (not zip) format.

    Five pickles (magic number, protocol version, system, state dict, storage keys) are followed
    by the storages: eight bytes of length and the numbers, little endian.

    Args:
        path: The file; about 19 MB are read into memory.

    Returns:
        Name to read-only array, in torch's axis order.

    Raises:
        ValueError: If the file is damaged, truncated, in another format, asks for a global other
            than a tensor's, has a tensor that reaches beyond its storage, or is not the file that
            the digits at the end of its name, as of `lite0-57934424.pth`, stand for.
    """
    content = path.read_bytes()
    try:
        _check_digits(path.name, content)
        return _tensors(content)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(
            f"Refused to read {path}: {error or type(error).__name__}. Expected a legacy torch "
            "state dict of float and integer tensors only. Nothing in the file was run. Run: "
            'pip install --force-reinstall "keras_transfer[demo]".'
        ) from error


def _check_digits(name: str, content: bytes) -> None:
    if (match := _DIGITS.search(name)) is None:
        return
    found = hashlib.sha256(content).hexdigest()[: len(match[1])]
    if found != match[1]:
        raise ValueError(
            f"its SHA-256 begins with {found}, and its name says {match[1]}, so it is damaged"
        )


def _tensors(content: bytes) -> dict[str, np.ndarray]:
    _check_memos(content)
    stream = io.BytesIO(content)
    magic, protocol, system, state, keys = (_TensorUnpickler(stream).load() for _ in range(5))
    little_endian = isinstance(system, dict) and system.get("little_endian") is True
    if (magic, protocol, little_endian) != (_MAGIC, _PROTOCOL, True):
        raise ValueError(
            f"its header is {short(magic)}, {short(protocol)}, {short(system)}, not that of a "
            f"little-endian legacy torch file of version {_PROTOCOL}"
        )
    views = _checked_views(state)
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise ValueError(f"its list of storages is {short(keys)}")
    storages = {view.storage for view in views.values()}
    by_key = {storage.key: storage for storage in storages}
    if len(by_key) != len(storages) or sorted(by_key) != sorted(keys):
        raise ValueError(f"it lists {len(keys)} storages, and its tensors name {len(storages)}")
    numbers = _read_storages(content, stream.tell(), [by_key[key] for key in keys])
    return {
        name: np.lib.stride_tricks.as_strided(
            numbers[view.storage][view.offset :],
            view.size,
            [step * view.storage.dtype.itemsize for step in view.stride],
            writeable=False,
        )
        for name, view in views.items()
    }


def _check_memos(content: bytes) -> None:
    """Refuses a place in the memo beyond the file's size: an unpickler allocates all below it."""
    stream = io.BytesIO(content)
    for _ in range(5):
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name.endswith("PUT") and int(argument or 0) >= len(content):
                raise ValueError(f"it asks for {argument} places, and has {len(content)} bytes")


def _read_storages(
    content: bytes, position: int, storages: list[_Storage]
) -> dict[_Storage, np.ndarray]:
    numbers = {}
    for storage in storages:
        found = int.from_bytes(content[position : position + 8], "little")
        position += 8
        end = position + storage.length * storage.dtype.itemsize
        if end > len(content):
            raise ValueError(
                f"it is truncated: {len(content)} bytes, and storage {storage.key} ends at {end}"
            )
        if found != storage.length:
            raise ValueError(
                f"storage {storage.key} has {found} numbers, and its tensors expect "
                f"{storage.length}"
            )
        numbers[storage] = np.frombuffer(content, storage.dtype, storage.length, position)
        position = end
    return numbers


def _checked_views(state: Any) -> dict[str, _View]:
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, not a dict of tensors")
    for name, view in state.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise ValueError(f"its entry {short(name)} is a {type(view).__name__}, not a tensor")
        if not _is_inside(view):
            raise ValueError(
                f"its tensor {short(name)} lies outside its storage: {short(vars(view))}"
            )
    return dict(state)


def _is_inside(view: _View) -> bool:
    """Whether every element of the view lies in its storage; `as_strided` itself checks nothing."""
    if not (isinstance(view.storage, _Storage) and isinstance(view.offset, int)):
        return False
    if not all(
        isinstance(axes, tuple) and all(isinstance(n, int) and n >= 0 for n in axes)
        for axes in (view.size, view.stride)
    ):
        return False
    if view.offset < 0 or len(view.size) != len(view.stride) or len(view.size) > _MOST_AXES:
        return False
    most = view.storage.length
    if max((view.offset, *view.size, *view.stride)) > most or math.prod(view.size) > most:
        return False  # more elements than numbers: an array far larger than the file
    if 0 in view.size:
        return True
    last = sum((n - 1) * step for n, step in zip(view.size, view.stride, strict=True))
    return view.offset + last < view.storage.length
