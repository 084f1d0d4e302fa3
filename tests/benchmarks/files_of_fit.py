"""Counts the files of this package that a `fit` with a BlockUnfreezer passes until Keras' own."""

import sys
from pathlib import Path

import keras

sys.path.append(str(Path(__file__).parents[1]))
from conftest import dataset, tiny_backbone

from keras_transfer import BlockUnfreezer, TransferModel

model = TransferModel(tiny_backbone(), 2)
model.compile()
unfreezer, passed = BlockUnfreezer({1: "block4"}), []


def note(frame, event, argument):
    file = Path(frame.f_code.co_filename)
    if frame.f_code is keras.Model.fit.__wrapped__.__code__:
        sys.setprofile(None)
    elif event == "call" and "keras_transfer" in file.parts and passed[-1:] != [file.stem]:
        passed.append(file.stem)


sys.setprofile(note)
model.fit(dataset(16), epochs=2, verbose=0, callbacks=[unfreezer])
sys.setprofile(None)
print(f"{len(set(passed))} files, {len(passed)} changes of file: {', '.join(sorted(set(passed)))}")
