"""Weights in a torch pickle of known content, read without torch."""

import hashlib
import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_STORAGE_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _View(NamedTuple):
    """A tensor before its numbers are read: a strided view of a storage."""

    storage: tuple[Any, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _TensorUnpickler(pickle.Unpickler):
    """Builds plain containers and `_View`; refuses every other class and function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _View(*arguments[:4])
        if module == "torch" and name in _STORAGE_DTYPES:
            return name
        raise pickle.UnpicklingError(f"The global {module}.{name} is not allowed.")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_torch_file(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Reads a state dict that `torch.save` wrote in its legacy (not zip) format.

    Five pickles (magic number, protocol version, system, state dict, storage keys) are followed
    by the storages: eight bytes of length and the numbers, little endian.

    Args:
        path: The file. It is read into memory as a whole.
        sha256: The digest of its content, in hexadecimal. Nothing is unpickled before it is
            checked, so a file of other content can do no harm.

    Returns:
        Name to read-only array, in torch's axis order.

    Raises:
        ValueError: If the content has another digest.
    """
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(
            f"Refused to read {path}: its SHA-256 is {digest}. Expected {sha256}. The file is "
            'damaged or was replaced. Run: pip install --force-reinstall "keras_transfer[demo]".'
        )
    stream = io.BytesIO(content)
    *_, views, keys = (_TensorUnpickler(stream).load() for _ in range(5))
    storages = {view.storage[2]: view.storage for view in views.values()}
    numbers, position = {}, stream.tell()
    for key in keys:
        _, kind, _, _, length, _ = storages[key]
        numbers[key] = np.frombuffer(content, _STORAGE_DTYPES[kind], length, position + 8)
        position += 8 + numbers[key].nbytes
    return {
        name: np.lib.stride_tricks.as_strided(
            numbers[view.storage[2]][view.offset :],
            view.shape,
            [stride * numbers[view.storage[2]].itemsize for stride in view.strides],
            writeable=False,
        )
        for name, view in views.items()
    }
