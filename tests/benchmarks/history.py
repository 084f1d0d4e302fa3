"""The picture at the top of the README: a real run that overfits, and is fine-tuned.

python tests/benchmarks/history.py
"""

from pathlib import Path

import keras

from keras_transfer import BlockUnfreezer, HistoryPlotter, TransferModel, image_folder
from keras_transfer.search.demo_data import elpv_folder


def main() -> None:
    """Trains on the demo data, and leaves history.png beside this file."""
    keras.utils.set_random_seed(0)
    data = image_folder(elpv_folder(), image_size=128)
    model = TransferModel("efficientnet_lite0", classes=data.class_names, dropout=0.3)
    model.compile(keras.optimizers.Adam(3e-4))
    plotter = HistoryPlotter(Path(__file__).with_name("history.png"), live=False)
    unfreezer = BlockUnfreezer({8: ["block7", "top"]}, learning_rate=5e-5)
    model.fit(
        data.train, validation_data=data.valid, epochs=24, callbacks=[unfreezer, plotter], verbose=2
    )
    print(plotter.diagnosis)


if __name__ == "__main__":
    main()
