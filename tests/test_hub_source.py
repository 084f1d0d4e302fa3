"""From a handle to a folder: a real web server, tensorflow_hub, and a cache that heals."""

import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import images
from hub_modules import SCOPE, archive, save_reusable, serving

from keras_transfer import FrozenBackbone, hub_source
from keras_transfer.hub_cache import CachedModule

PATH = f"/google/imagenet/{SCOPE}/feature_vector/5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_reusable(tmp_path_factory.mktemp("hub") / SCOPE)


@pytest.fixture(scope="module")
def _web(folder):
    with serving() as server:
        yield server, archive(folder)


@pytest.fixture
def server(_web):
    server, content = _web
    server.modules = {PATH: content}
    server.asked.clear()
    server.cut = None
    return server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def place(cache: Path, handle: str) -> Path:
    return cache / hashlib.sha1(handle.encode()).hexdigest()


class TestAddress:
    def test_it_is_fetched_once_into_the_cache_that_tensorflow_hub_is_told(self, server, cache):
        handle = server.handle_for(PATH)
        backbone = FrozenBackbone(handle)
        assert backbone.link_names[0] == SCOPE
        assert [block.name for block in backbone.blocks][-1] == "block4"
        assert backbone(images(2)).shape == (2, 10)
        FrozenBackbone(handle)
        assert server.asked == [PATH]
        assert (place(cache, handle) / "saved_model.pb").is_file()

    def test_an_address_of_an_archive_will_do(self, server, cache):
        server.modules["/files/module.tar.gz"] = server.modules[PATH]
        assert hub_source.folder_of(server.handle_for("/files/module.tar.gz")).is_dir()

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (b"<html>Sign in first.</html>", "is no archive, or is cut short: try again, or look"),
            (b"", "is no archive, or is cut short"),
            ("../outside", "is refused, .* do not trust where it is from"),
        ],
    )
    def test_what_is_wrong_with_an_answer_is_said(self, answer, said, server, cache):
        if isinstance(answer, str):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
                tar.addfile(tarfile.TarInfo(answer), io.BytesIO())
            answer = buffer.getvalue()
        server.modules["/wrong"] = answer
        with pytest.raises(OSError, match=rf"cannot be fetched: what the server sends {said}"):
            hub_source.folder_of(server.handle_for("/wrong"))

    @pytest.mark.parametrize(
        ("handle", "name"),
        [
            ("https://tfhub.dev/google/imagenet/resnet_v1_152/feature_vector/5", "resnet_v1_152"),
            (
                "https://www.kaggle.com/models/google/mobilenet-v2/frameworks/TensorFlow2/"
                "variations/130-224-feature-vector/versions/1",
                "130_224_feature_vector",
            ),
            ("/data/my-net.tar.gz", "my_net"),
            ("/data/saved_model", "data"),
            ("5", "hub_module"),
        ],
    )
    def test_the_module_is_called_what_its_address_says(self, handle, name):
        assert hub_source.name_of(handle) == name

    def test_names_of_networks_are_no_handles(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "vgg16").mkdir()
        assert not hub_source.is_handle("vgg16")
        assert FrozenBackbone("vgg16", weights=None).blocks[0].name == "block1"

    def test_an_address_with_nothing_behind_it_is_named(self, server, cache):
        with pytest.raises(OSError, match="/nothing/1' cannot be fetched: the server answers 404"):
            FrozenBackbone(server.handle_for("/nothing/1"))

    def test_offline_with_nothing_kept_both_ways_out_are_named(self, cache):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            handle = f"http://127.0.0.1:{free.getsockname()[1]}/module/1"
        with pytest.raises(OSError, match="cannot be fetched") as error:
            FrozenBackbone(handle)
        message = str(error.value)
        assert handle in message
        assert str(cache) in message
        assert "Go online once, with TFHUB_CACHE_DIR" in message
        assert f'curl -L "{handle}?tf-hub-format=compressed" -o module.tar.gz' in message

    def test_a_page_that_is_no_module_is_named(self, server, cache):
        server.modules["/page"] = b"<html>Sign in</html>"
        with pytest.raises(OSError, match="does not appear to be a valid module"):
            FrozenBackbone(server.handle_for("/page"))

    def test_an_archive_of_something_else_is_named_with_its_folder(self, server, cache, tmp_path):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "readme.txt").write_text("no model")
        server.modules["/other"] = archive(tmp_path / "other")
        with pytest.raises(
            OSError, match=r"SavedModel: saved_model.pb is missing.*delete that"
        ) as error:
            FrozenBackbone(server.handle_for("/other"))
        assert str(place(cache, server.handle_for("/other"))) in str(error.value)

    def test_a_hostile_archive_writes_nothing_outside(self, server, cache, tmp_path):
        for i, (_, content) in enumerate(hostile(tmp_path / "out")):
            server.modules[f"/hostile/{i}"] = content
            with pytest.raises(OSError, match="cannot be fetched"):
                FrozenBackbone(server.handle_for(f"/hostile/{i}"))
        assert {path.name for path in tmp_path.iterdir()} == {"cache"}


def test_a_file_in_the_place_of_a_copy_leaves_nothing_behind(server, cache):
    handle = server.handle_for(PATH)
    cache.mkdir()
    place(cache, handle).write_text("no folder")
    assert hub_source.folder_of(handle).is_dir()
    assert not list(cache.glob("*.damaged.*"))


def damaged(name: str, folder: Path) -> str:
    """Damages a cached module in one way, and returns what is said of it."""
    if name == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
        return "saved_model.pb is missing"
    if name == "no graph":
        (folder / "saved_model.pb").unlink()
        return "saved_model.pb is missing"
    if name == "empty graph":
        (folder / "saved_model.pb").write_bytes(b"")
        return "saved_model.pb is empty"
    if name == "torn graph":
        content = (folder / "saved_model.pb").read_bytes()
        (folder / "saved_model.pb").write_bytes(content[:-1000])
        return "cannot be read as a SavedModel"
    if name == "no variables":
        shutil.rmtree(folder / "variables")
        return "variables/variables.index is missing"
    shard = folder / "variables" / "variables.data-00000-of-00001"
    if name == "no shard":
        shard.unlink()
        return "variables.data-00000-of-00001 is missing"
    if name == "torn shard":
        shard.write_bytes(shard.read_bytes()[:200])
        return "cannot be read as a SavedModel"
    if name == "rotten shard":
        content = bytearray(shard.read_bytes())
        content[500] ^= 1
        shard.write_bytes(content)
        return "cannot be read as a SavedModel"
    shard.write_bytes(b"")
    return "variables.data-00000-of-00001 is empty"


WAYS = [
    "empty",
    "no graph",
    "empty graph",
    "torn graph",
    "no variables",
    "no shard",
    "empty shard",
    "torn shard",
    "rotten shard",
]


class TestHealing:
    @pytest.mark.parametrize("way", WAYS)
    def test_a_damaged_copy_is_named_and_fetched_again(self, way, server, cache, capsys):
        handle = server.handle_for(PATH)
        features = FrozenBackbone(handle)(images(2))
        (cache / "somebody_else").mkdir()
        said = damaged(way, place(cache, handle))
        np.testing.assert_array_equal(FrozenBackbone(handle)(images(2)), features)
        assert said in (printed := capsys.readouterr().out)
        assert str(place(cache, handle)) in printed
        assert server.asked == [PATH] * 2
        assert {path.suffix for path in cache.iterdir()} <= {"", ".txt", ".healing"}
        assert (cache / "somebody_else").is_dir()

    @pytest.mark.parametrize("way", ["no graph", "torn shard"])
    def test_a_damaged_copy_offline_is_named_with_both_ways_out(self, way, server, cache, capsys):
        handle = server.handle_for(PATH)
        FrozenBackbone(handle)
        said = damaged(way, place(cache, handle))
        server.modules.clear()
        with pytest.raises(OSError, match="cannot be fetched"):
            FrozenBackbone(handle)
        assert said in capsys.readouterr().out
        assert [p.name for p in cache.iterdir() if p.is_dir()] == [place(cache, handle).name]

    def test_a_download_that_breaks_off_leaves_nothing_behind(self, server, cache):
        server.cut = len(server.modules[PATH]) // 2
        handle = server.handle_for(PATH)
        with pytest.raises(OSError, match="cannot be fetched"):
            FrozenBackbone(handle)
        assert not place(cache, handle).exists()
        assert FrozenBackbone(handle)(images(1)).shape == (1, 10)

    def test_the_lock_of_a_download_that_was_killed_is_removed(self, server, cache, capsys):
        handle = server.handle_for(PATH)
        script = f"""
            import os
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
            from tensorflow_hub import resolver
            folder = {str(place(cache, handle))!r}
            resolver.atomic_download({handle!r}, lambda *_: os._exit(9), folder)
        """
        cache.mkdir()
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)])
        assert done.returncode == 9
        assert len(list(cache.iterdir())) == 2  # the lock, and what had been fetched
        began = time.monotonic()
        FrozenBackbone(handle)
        assert time.monotonic() - began < 30  # tensorflow_hub alone waits for ten minutes
        assert "was left by an interrupted download" in capsys.readouterr().out
        assert not list(cache.glob("*.lock"))
        assert not list(cache.glob("*.tmp"))

    def test_the_lock_of_a_download_that_goes_on_is_respected(self, cache):
        class Hub:
            class resolver:
                tfhub_cache_dir = staticmethod(lambda use_temp: str(cache))

        cached = CachedModule(Hub, "http://somewhere/1")
        cache.mkdir()
        lock = Path(f"{cached.folder}.lock")
        for holder in (f"{socket.gethostname()}.{os.getpid()}.1a", "another.example.org.1.2b"):
            lock.write_text(holder)
            cached.remove_stale_lock()
            assert lock.exists(), holder
        old = time.time() - 3600
        os.utime(lock, (old, old))
        cached.remove_stale_lock()
        assert not lock.exists()

    def test_a_link_in_the_cache_is_not_followed(self, server, cache, folder, tmp_path):
        handle = server.handle_for(PATH)
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        (theirs / "letter.txt").write_text("dear")
        cache.mkdir()
        place(cache, handle).symlink_to(theirs)
        with pytest.raises(OSError, match=r"it is a link.*Delete it by hand"):
            FrozenBackbone(handle)
        assert (theirs / "letter.txt").read_text() == "dear"


def hostile(outside: Path):
    """Archives that would write, or read, outside the folder that they are unpacked into."""

    def made(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", then: str = ""):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"evil"))
            if then:
                member = tarfile.TarInfo(then)
                member.size = 4
                tar.addfile(member, io.BytesIO(b"evil"))
        return buffer.getvalue()

    yield "lies outside of it", made("../out")
    yield "lies outside of it", made("variables/../../../out")
    yield "is a link or a device", made("link", tarfile.SYMTYPE, str(outside.parent), "link/out")
    yield "is a link or a device", made("link", tarfile.LNKTYPE, "/etc/passwd")
    yield "is a link or a device", made("link", tarfile.LNKTYPE, "../../../out")
    yield "is a link or a device", made("pipe", tarfile.FIFOTYPE)


class TestLocal:
    def test_an_archive_gives_the_same_as_its_folder(self, folder, tmp_path):
        for name, content in (("a.tar.gz", archive(folder)), ("b.tgz", archive(folder.parent))):
            (tmp_path / name).write_bytes(content)
            found = FrozenBackbone(str(tmp_path / name))(images(2))
            np.testing.assert_array_equal(found, FrozenBackbone(folder)(images(2)))

    def test_a_hostile_archive_is_refused_and_writes_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        absolute = io.BytesIO()
        with tarfile.open(fileobj=absolute, mode="w:gz") as tar:
            tar.addfile(tarfile.TarInfo(str(tmp_path / "out")))
        for said, content in [
            *hostile(tmp_path / "out"),
            ("lies outside of it", absolute.getvalue()),
        ]:
            (tmp_path / "evil.tar.gz").write_bytes(content)
            with pytest.raises(ValueError, match=f"its member .* {said}.*Nothing was written"):
                FrozenBackbone(tmp_path / "evil.tar.gz")
            assert {path.name for path in tmp_path.iterdir()} == {"tmp", "evil.tar.gz"}
            assert not list((tmp_path / "tmp").iterdir())

    def test_an_archive_that_breaks_off_is_named(self, folder, tmp_path):
        (tmp_path / "half.tar.gz").write_bytes(archive(folder)[:-2000])
        with pytest.raises(OSError, match=r"half.tar.gz is no complete archive"):
            FrozenBackbone(tmp_path / "half.tar.gz")
        (tmp_path / "text.tar.gz").write_text("no archive")
        with pytest.raises(OSError, match=r"text.tar.gz is no complete archive"):
            FrozenBackbone(tmp_path / "text.tar.gz")
        with pytest.raises(FileNotFoundError, match=r"none.tar.gz does not exist"):
            FrozenBackbone(tmp_path / "none.tar.gz")

    def test_a_folder_that_is_no_saved_model_is_named(self, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").touch()
        with pytest.raises(OSError, match=r"saved_model.pb is missing.*Found: cat.jpg"):
            FrozenBackbone(str(tmp_path / "photos"))
        with pytest.raises(FileNotFoundError, match=r"is no folder. Expected a SavedModel folder"):
            FrozenBackbone(str(tmp_path / "nothing"))

    @pytest.mark.parametrize("way", WAYS)
    def test_a_damaged_folder_is_named_and_left_alone(self, way, folder, tmp_path):
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        said = damaged(way, copy)
        with pytest.raises(OSError, match=f"{said}.*"):
            FrozenBackbone(copy)
        assert copy.is_dir()


class TestImport:
    def test_local_modules_need_no_tensorflow_hub(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorflow_hub", None)
        assert FrozenBackbone(folder)(images(1)).shape == (1, 10)
        with pytest.raises(ImportError, match=r"Run: pip install .*setuptools<82.*SavedModel"):
            FrozenBackbone("http://127.0.0.1:9/module/1")

    @pytest.mark.slow
    def test_it_works_without_pkg_resources(self, tmp_path):
        # As in an environment with setuptools 82 or later, or with none.
        script = """
            import sys
            sys.modules["pkg_resources"] = None
            from keras_transfer import hub_source
            hub = hub_source._import_tensorflow_hub()
            assert hub.resolve and sys.modules.get("pkg_resources") is None
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_tensorflow_hub_keeps_modules_where_we_look_for_them(server, cache):
    hub = hub_source._import_tensorflow_hub()
    handle = server.handle_for(PATH)
    assert Path(hub.resolve(handle)) == CachedModule(hub, handle).folder
    assert tf.io.gfile.isdir(hub.resolve(handle))
