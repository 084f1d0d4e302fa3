"""Backbones made of the blocks of another one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import keras

from keras_transfer.backbones.blocks import unit_names
from keras_transfer.backbones.hub.hub_module import cloning

if TYPE_CHECKING:
    from keras_transfer.backbones.blocks import Which
    from keras_transfer.backbones.frozen_backbone import FrozenBackbone

_Backbone = TypeVar("_Backbone", bound="FrozenBackbone")


def up_to(backbone: _Backbone, after: str) -> _Backbone:
    """Returns the chain up to a link; see `FrozenBackbone.up_to`."""
    if after == backbone._pool.name:
        return backbone
    first = backbone._chain[0]
    x = images = keras.Input(first.input_shape[1:])
    for block in backbone._chain[: backbone._index(after)]:
        x = block(x)
    unfrozen = backbone._unfrozen
    lower = type(backbone)(
        keras.Model(images, x, name=first.name),
        pooling=None,
        preprocessing=backbone.preprocessing,
        batch_norm=backbone.batch_norm,
        name=f"{backbone.name}_up_to_{after}",
    )
    if unfrozen:  # the new backbone has frozen the layers that it shares
        backbone.unfreeze(unfrozen)
    return lower


def share_blocks(backbone: _Backbone, own: Which, pooling: str | None) -> _Backbone:
    """Returns a backbone with own copies of some blocks; see `FrozenBackbone.share_blocks`."""
    if unfrozen := backbone._unfrozen:
        raise ValueError(
            f"Backbone '{backbone.name}' cannot share what trains: {', '.join(unfrozen)}. Freeze "
            "it first; the copied blocks can then be unfrozen."
        )
    names = set(backbone.select(own)) if own not in ((), []) else set()
    source = backbone._source.value
    if source.norm is not None and backbone._units[-1].name in names:
        source = replace(source, norm=copy_of(source.norm))
    other = type(backbone)(
        source,
        pooling=backbone.pooling if pooling == "same" else pooling,
        preprocessing=backbone.preprocessing,
        batch_norm=backbone.batch_norm,
        name=backbone.name,
    )
    chain = [link if names.isdisjoint(unit_names(link)) else copy_of(link) for link in other._chain]
    other._chain.clear()  # item by item, Keras would not track what takes its place
    other._chain.extend(chain)
    return other


def copy_of(layer: keras.Layer, **changes: Any) -> Any:
    """Returns a frozen copy of a layer with its weights, and with changes of its config."""
    with cloning():
        copy = type(layer).from_config({**layer.get_config(), **changes})
    if not copy.built:
        copy.build_from_config(layer.get_build_config())
    copy.set_weights(layer.get_weights())
    copy.trainable = False
    return copy
