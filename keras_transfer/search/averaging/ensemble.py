"""Member: what a trial has trained, in a file, and the average of several in one model."""

import errno
import json
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.models.transfer_model import TransferModel
from keras_transfer.search.space.space import LEVELS
from keras_transfer.utils.atomic_files import written_whole

_VERSION = 1
# What NumPy and the modules below it raise of a file that is damaged.
_DAMAGED = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_FACTS = "facts"  # the one entry of a file that is text: JSON, as bytes


@dataclass(frozen=True)
class Member:
    """What a trial has trained: its head, and the blocks that it fine-tuned.

    Attributes:
        backbone: The name of its backbone.
        origin: A digest of the weights that the backbone had before; `""` for an unknown one.
        pooling: Of the backbone.
        image_shape: Height, width and channels of the images.
        classes: The class names.
        head: The config of its head.
        head_weights: The weights of that.
        blocks: Block name to the weights that trained, lowest block first.
    """

    backbone: str
    origin: str
    pooling: str | None
    image_shape: tuple[int | None, ...]
    classes: tuple[str, ...]
    head: Mapping[str, Any]
    head_weights: tuple[np.ndarray, ...]
    blocks: Mapping[str, tuple[np.ndarray, ...]]

    @classmethod
    def of(
        cls, model: TransferModel, blocks: Collection[str] = (), *, backbone: str, origin: str = ""
    ) -> Self:
        """Captures what a model has trained.

        Args:
            model: The model.
            blocks: The blocks that it fine-tuned, lowest first.
            backbone: The name of its backbone.
            origin: As the attribute.
        """
        return cls(
            backbone,
            origin,
            model.backbone.pooling,
            tuple(model.image_shape),
            tuple(model.class_names),
            keras.saving.serialize_keras_object(model.head),
            tuple(weight.numpy() for weight in model.head.weights),
            {name: _values(model.backbone.block_state(name)) for name in blocks},
        )

    def write(self, path: str | PathLike[str]) -> None:
        """Writes a NumPy file that holds no code, whole or not at all."""
        facts = {
            "version": _VERSION,
            "backbone": self.backbone,
            "origin": self.origin,
            "pooling": self.pooling,
            "image_shape": self.image_shape,
            "classes": self.classes,
            "head": self.head,
            "head_weights": len(self.head_weights),
            "blocks": {name: len(weights) for name, weights in self.blocks.items()},
        }
        arrays: dict[str, Any] = {f"head/{i}": weight for i, weight in enumerate(self.head_weights)}
        for number, weights in enumerate(self.blocks.values()):
            arrays.update({f"block{number}/{i}": weight for i, weight in enumerate(weights)})
        text = np.frombuffer(json.dumps(facts).encode(), "uint8")
        with written_whole(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, **{_FACTS: text, **arrays})

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Reads a file that `write` has written. Nothing in it is run.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is torn, or holds something else.
        """
        try:
            # Opened here, since NumPy leaves a file open that turns out to be torn.
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                facts = json.loads(file[_FACTS].tobytes())
                if facts["version"] != _VERSION:
                    raise ValueError(f"its version is {facts['version']!r}, not {_VERSION}")
                _check_config(facts["head"])
                blocks = {
                    name: tuple(file[f"block{number}/{i}"] for i in range(count))
                    for number, (name, count) in enumerate(facts["blocks"].items())
                }
                count = sum(name.startswith("head/") for name in file.files)
                weights = tuple(file[f"head/{i}"] for i in range(count))
                if count != facts.get("head_weights", count):  # which earlier files don't say
                    raise ValueError(f"{count} of {facts['head_weights']} weights of the head")
        except (*_DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EISDIR):
                raise  # EINVAL is what a place before the file's begin gives
            raise ValueError(
                f"{str(path)!r} is not the whole of what a trial has trained: {error}. Expected a "
                "file that a search wrote."
            ) from error
        return cls(
            facts["backbone"],
            facts["origin"],
            facts["pooling"],
            tuple(facts["image_shape"]),
            tuple(facts["classes"]),
            facts["head"],
            weights,
            blocks,
        )

    def new_head(self, name: str | None = None) -> keras.Model:
        """Returns its head as a model of its own."""
        head = keras.saving.deserialize_keras_object(dict(self.head), safe_mode=True)
        if name is not None:
            head = type(head).from_config({**head.get_config(), "name": name})
        return head

    def put_into(self, model: TransferModel) -> None:
        """Gives its weights to a model of the same hyperparameters."""
        if not model.built:
            model.build((None, *self.image_shape))
        parts = [(model.head.weights, self.head_weights)]
        parts += [(model.backbone.block_state(name), w) for name, w in self.blocks.items()]
        for weights, values in parts:
            for weight, value in zip(weights, values, strict=True):
                weight.assign(value)

    def model(self, backbone: FrozenBackbone) -> TransferModel:
        """Returns the model that the trial ended with, on a backbone that stays as it is.

        Args:
            backbone: Its backbone, with the weights that it had before, frozen.

        Raises:
            ValueError: If it has other blocks or weights.
        """
        sharing = _with_blocks(backbone, self)
        model = TransferModel(sharing, self.classes, head=self.new_head())
        return _built(model, self.image_shape, self.head_weights)


def average(backbones: Mapping[str, FrozenBackbone], members: Sequence[Member]) -> TransferModel:
    """Returns a compiled model that gives the mean of the members' probabilities.

    Averaging the best models of a search costs nothing more to train and errs less than its
    winner (Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004). A
    block that several members left frozen runs once for all of them.

    Args:
        backbones: Name to backbone, with the weights that it had before, frozen.
        members: What each has trained, for the same images and classes.
    """
    first = members[0]
    trunk, cut_point = _trunk(backbones, members)
    shared = keras.Input(trunk.compute_output_shape((None, *first.image_shape))[1:])
    scores = list(_scores(shared, backbones, cut_point, members))
    mean = keras.layers.Average(dtype="float32")(scores) if len(scores) > 1 else scores[0]
    model = TransferModel(trunk, first.classes, head=keras.Model(shared, mean, name="average"))
    return _built(model, first.image_shape)


def _trunk(
    backbones: Mapping[str, FrozenBackbone], members: Sequence[Member]
) -> tuple[FrozenBackbone, str | None]:
    """Returns what all members share, and its last link; `None` where that is the images alone."""
    first = members[0]
    backbone = backbones[first.backbone]
    cut_point = backbone.cut_point_without({name for one in members for name in one.blocks})
    if cut_point == "pooling" and len({one.pooling for one in members}) > 1:
        cut_point = backbone.model_names[-1]
    levels = {one.pooling == LEVELS for one in members}
    if len({one.backbone for one in members}) > 1 or len(levels) > 1 or cut_point is None:
        images = keras.Input(first.image_shape)
        nothing = keras.Model(images, keras.layers.Identity(name="pixels")(images), name="images")
        return FrozenBackbone(nothing, pooling=None, preprocessing="raw"), None
    return backbone.share_blocks(pooling=first.pooling).up_to(cut_point), cut_point


def _scores(
    shared: Any,
    backbones: Mapping[str, FrozenBackbone],
    cut_point: str | None,
    members: Sequence[Member],
) -> Iterator[Any]:
    """Goes on from what the members share to the probabilities of each."""
    untouched: dict[tuple[str, ...], Any] = {}  # what comes out of blocks that were left alone
    several = len({one.backbone for one in members}) > 1

    for number, one in enumerate(members):
        sharing, x, prefix = _with_blocks(backbones[one.backbone], one), shared, "all"
        if several:
            prefix = f"backbone{list(backbones).index(one.backbone)}"
        names: tuple[str, ...] = ("preprocessing", *sharing.model_names)
        if cut_point is not None:
            names = names[(*names, "pooling").index(cut_point) + 1 :]
        as_it_was, levels = True, []
        for name in names:
            as_it_was = as_it_was and name not in one.blocks
            key = (one.backbone, name)
            if as_it_was and key in untouched:
                x = untouched[key]
            else:
                link = sharing.preprocessing if name == names[0] and cut_point is None else None
                link = link or sharing.block(name)
                x = _apply(link, x, f"{prefix if as_it_was else f'member{number}'}_{name}")
                if as_it_was:
                    untouched[key] = x
            levels.append(x)
        head = one.new_head(f"member{number}_head")
        if cut_point != "pooling":
            x = sharing.pool(levels[1:] if one.pooling == LEVELS else x)
        yield head(x)
        head.set_weights(one.head_weights)


def _apply(block: keras.Layer, x: Any, name: str) -> Any:
    """Goes through a copy of a link under a name of its own."""
    copy = type(block).from_config({**block.get_config(), "name": name})
    copy.set_weights(block.get_weights())
    copy.trainable = False  # so that it stays in inference mode, as a backbone runs its blocks
    return copy(x)


def _with_blocks(backbone: FrozenBackbone, member: Member) -> FrozenBackbone:
    """The backbone with the blocks that a member has fine-tuned."""
    sharing = backbone.share_blocks(list(member.blocks), pooling=member.pooling)
    for name, values in member.blocks.items():
        weights = sharing.block_state(name)
        shapes = [tuple(weight.shape) for weight in weights]
        if shapes != [value.shape for value in values]:
            raise ValueError(
                f"Block {name!r} of backbone '{backbone.name}' has weights of other shapes than "
                f"what was trained on {member.backbone!r}. Give the backbone of the search."
            )
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
    return sharing


def _built(
    model: TransferModel, image_shape: Sequence[int | None], weights: Sequence[np.ndarray] = ()
) -> TransferModel:
    model.build((None, *image_shape))
    if weights:
        model.head.set_weights(weights)
    model.compile()
    model.optimizer.build(model.trainable_variables)  # loading expects its variables
    return model


def _values(weights: Sequence[keras.Variable]) -> tuple[np.ndarray, ...]:
    return tuple(weight.numpy() for weight in weights)


def _check_config(config: Any) -> None:
    """Refuses a config that names anything but what Keras and this package bring along."""
    if isinstance(config, Mapping):
        if "class_name" in config:
            module, name = config.get("module"), config.get("registered_name") or ""
            own = module is not None and str(module).split(".")[0] == "keras"
            if not own and not name.startswith("keras_transfer>"):
                raise ValueError(
                    f"its config names {config['class_name']!r} of {module!r}, which is neither "
                    "Keras' own nor of keras_transfer"
                )
            if config["class_name"] in ("Lambda", "function", "__lambda__"):
                raise ValueError(f"its config holds code: {config['class_name']!r}")
        for value in config.values():
            _check_config(value)
    elif isinstance(config, list | tuple):
        for value in config:
            _check_config(value)
