"""Small modules in TF-Hub's format, and a web server that gives them out as tfhub.dev does."""

import atexit
import contextlib
import functools
import io
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import keras
import numpy as np
import tensorflow as tf

SCOPE = "resnet_v1_152"
GROUPS = ("conv1", "block1", "block2", "block3", "block4")
FEATURES = 10


class Reusable(tf.__internal__.tracking.AutoTrackable):
    """A reusable SavedModel: what TF-Hub's publishers export, with the names of its ResNet V1."""

    def __init__(
        self, *, pooled: bool = True, size: int | None = None, dtype=tf.float32, groups=GROUPS
    ) -> None:
        self.layers = []
        self.variables, self.trainable_variables, self.regularization_losses = [], [], []
        self.pooled = pooled
        channels = 3
        widths = (4, 4, 6, 8, FEATURES)[-len(groups) :]
        for i, (group, width) in enumerate(zip(groups, widths, strict=True)):
            self._add(f"{SCOPE}/{group}/unit_1/bottleneck_v1/conv1", channels, width, seed=i)
            channels = width
        for training in (True, False):
            images = tf.TensorSpec((None, size, size, 3), dtype)
            self.__call__.get_concrete_function(images, training=training)
            self.__call__.get_concrete_function(
                images, training=training, batch_norm_momentum=tf.TensorSpec((), tf.float32)
            )

    def _add(self, scope: str, channels: int, width: int, seed: int) -> None:
        values = np.random.default_rng(seed).normal(0, 0.3, (3, 3, channels, width))
        kernel = tf.Variable(values.astype("float32"), name=f"{scope}/weights")
        norm = f"{scope}/BatchNorm"
        gamma = tf.Variable(tf.ones(width), name=f"{norm}/gamma")
        beta = tf.Variable(tf.zeros(width), name=f"{norm}/beta")
        mean = tf.Variable(tf.fill([width], 0.1), False, name=f"{norm}/moving_mean")
        variance = tf.Variable(tf.fill([width], 0.9), False, name=f"{norm}/moving_variance")
        self.layers.append([kernel, gamma, beta, mean, variance])
        self.variables += [kernel, gamma, beta, mean, variance]
        self.trainable_variables += [kernel, gamma, beta]
        loss = tf.function(lambda: 1e-2 * tf.reduce_sum(kernel**2), input_signature=[])
        self.regularization_losses.append(loss)

    @tf.function
    def __call__(self, images, training=False, batch_norm_momentum=0.9):
        x = tf.cast(images, tf.float32)
        for i, (kernel, gamma, beta, mean, variance) in enumerate(self.layers):
            x = tf.nn.conv2d(x, kernel, 2 if i < 3 else 1, "SAME")
            if training:
                now, spread = tf.nn.moments(x, [0, 1, 2])
                mean.assign(batch_norm_momentum * mean + (1 - batch_norm_momentum) * now)
                variance.assign(batch_norm_momentum * variance + (1 - batch_norm_momentum) * spread)
            x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)
            x = tf.nn.tanh(x)
        return tf.reduce_mean(x, [1, 2]) if self.pooled else x


def save_reusable(folder: Path, **kwargs) -> Path:
    tf.saved_model.save(Reusable(**kwargs), str(folder))
    return folder


class Plain(tf.Module):
    """A SavedModel with signatures only."""

    def __init__(self, outputs: int = 1, inputs: int = 1) -> None:
        super().__init__()
        self.low = tf.Variable(tf.random.stateless_normal((3, 3, 3, 4), (1, 2)), name="low/kernel")
        self.high = tf.Variable(tf.random.stateless_normal((4, 5), (3, 4)), name="high/kernel")
        self.outputs = outputs
        images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
        mask = tf.TensorSpec((None, None, None, 1), tf.float32, name="mask")
        function = self.one if inputs == 1 else self.two
        specs = [images, mask][:inputs]
        self.serving = {"serving_default": function.get_concrete_function(*specs)}

    @tf.function
    def one(self, images):
        x = tf.nn.relu(tf.nn.conv2d(images, self.low, 2, "SAME"))
        pooled = tf.reduce_mean(x, [1, 2])
        both = {"features": pooled, "logits": pooled @ self.high}
        return both if self.outputs == 2 else {"features": pooled}

    @tf.function
    def two(self, images, mask):
        return {"features": tf.reduce_mean(images * mask, [1, 2])}


def save_plain(folder: Path, **kwargs) -> Path:
    module = Plain(**kwargs)
    tf.saved_model.save(module, str(folder), signatures=module.serving)
    return folder


def save_frozen(folder: Path) -> Path:
    """What Keras writes of a network whose layers are frozen: it lists nothing that trains."""
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, name="low"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Conv2D(5, 3, name="high"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    network.trainable = False
    network.export(str(folder), verbose=False)
    return folder


@functools.cache
def shared(kind: str) -> Path:
    """A module that is written once for all tests, which leave it as it is.

    Args:
        kind: `"features"` and `"maps"` have five groups of variables, `"small"` has two, `"plain"`
            has a signature only.
    """
    top = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    if kind == "plain":
        return save_plain(top / "plain")
    if kind == "maps":
        return save_reusable(top / "maps", pooled=False)
    return save_reusable(top / SCOPE, groups=GROUPS[-2:] if kind == "small" else GROUPS)


def archive(folder: Path) -> bytes:
    """The folder as tfhub.dev sends it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        tar.add(folder, arcname=".")
    return buffer.getvalue()


class Server:
    """A web server on the loopback address.

    Attributes:
        modules: Path to what is sent for it.
        asked: The paths that were asked for.
        cut: Bytes after which the next answer breaks off, or `None`.
    """

    def __init__(self) -> None:
        self.modules: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut: int | None = None

    def handle_for(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlparse(request.path)
        self.asked.append(url.path)
        compressed = parse_qs(url.query).get("tf-hub-format") == ["compressed"]
        if url.path not in self.modules or not compressed:
            request.send_error(404)
            return
        content = self.modules[url.path]
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        cut, self.cut = self.cut, None
        request.wfile.write(content[:cut])


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Runs a server; it is gone when the block is left."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        def log_message(self, *args):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
