"""From a handle to a folder: a real web server, archives, and a cache that heals."""

import gzip
import hashlib
import io
import os
import shutil
import socket
import stat
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import images
from hub_modules import SCOPE, archive, serving, shared

from keras_transfer import FrozenBackbone
from keras_transfer.backbones.hub import archive as unpacking
from keras_transfer.backbones.hub import download
from keras_transfer.backbones.hub.archive import unpack

PATH = f"/google/imagenet/{SCOPE}/feature_vector/5"


@pytest.fixture(scope="module")
def folder():
    return shared("small")


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


def offline() -> str:
    """An address at which nothing answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/module/1"


class TestAddress:
    def test_it_is_fetched_once_into_the_cache_that_is_asked_for(self, server, cache):
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
        assert download.folder_of(server.handle_for("/files/module.tar.gz")).is_dir()

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"<html>Sign in first.</html>", "cannot be unpacked .* Look at the address"),
            (b"", "cannot be unpacked"),
            ("../outside", ".* lies outside of it.* do not trust where it came from"),
        ],
    )
    def test_a_bad_answer_of_the_server_is_explained(self, answer, reason, server, cache):
        if isinstance(answer, str):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
                tar.addfile(tarfile.TarInfo(answer), io.BytesIO())
            answer = buffer.getvalue()
        server.modules["/wrong"] = answer
        with pytest.raises(OSError, match=rf"cannot be fetched: .*what the server sends.*{reason}"):
            download.folder_of(server.handle_for("/wrong"))

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
    def test_the_module_is_named_after_its_address(self, handle, name):
        assert download.name_of(handle) == name

    def test_names_of_networks_are_no_handles(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "vgg16").mkdir()
        assert not download.is_handle("vgg16")

    def test_an_address_with_nothing_behind_it_is_named(self, server, cache):
        with pytest.raises(OSError, match="/nothing/1' cannot be fetched: the server answers 404"):
            FrozenBackbone(server.handle_for("/nothing/1"))

    def test_offline_with_nothing_in_the_cache_both_ways_out_are_named(self, cache):
        handle = offline()
        with pytest.raises(OSError, match=r"cannot be fetched .* its copy is not in the") as error:
            FrozenBackbone(handle)
        message = str(error.value)
        assert handle in message
        assert str(cache) in message
        assert "Go online once, with TFHUB_CACHE_DIR" in message
        assert f'curl -L "{handle}?tf-hub-format=compressed" -o module.tar.gz' in message

    def test_an_archive_without_a_saved_model_is_refused_and_removed(self, server, cache, tmp_path):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "readme.txt").write_text("no model")
        server.modules["/other"] = archive(tmp_path / "other")
        with pytest.raises(
            OSError, match=r"/other gives is no complete SavedModel: saved_model.pb"
        ):
            FrozenBackbone(server.handle_for("/other"))
        assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_file_in_the_place_of_a_copy_leaves_nothing_behind(server, cache):
    handle = server.handle_for(PATH)
    cache.mkdir()
    place(cache, handle).write_text("no folder")
    assert download.folder_of(handle).is_dir()
    assert {path.suffix for path in cache.iterdir()} == {"", ".busy"}


def damaged(way: str, folder: Path) -> str:
    """Damages a cached module in one way, and returns the reason that is printed."""
    graph = folder / "saved_model.pb"
    shard = folder / "variables" / "variables.data-00000-of-00001"
    if way == "no variables":
        shutil.rmtree(folder / "variables")
        return "variables/variables.index is missing or empty"
    if way == "no graph":
        graph.unlink()
        return "saved_model.pb is missing or empty"
    if way == "empty graph":
        graph.write_bytes(b"")
        return "saved_model.pb is missing or empty"
    if way == "rotten constant":  # which TensorFlow does not notice
        content, constant = graph.read_bytes(), struct.pack("<f", 1e-3)
        assert constant in content
        graph.write_bytes(content.replace(constant, struct.pack("<f", 1.0)))
        return "its graph does not fit fingerprint.pb"
    if way == "torn fingerprint":
        (folder / "fingerprint.pb").write_bytes((folder / "fingerprint.pb").read_bytes()[:5])
        return "fingerprint.pb cannot be read"
    if way == "torn graph":
        graph.write_bytes(graph.read_bytes()[:-1000])
    elif way == "rotten graph":  # for which TensorFlow raises AttributeError
        graph.write_bytes(graph.read_bytes().replace(b"varkw", b"vArkw"))
    elif way == "no shard":
        shard.unlink()
    elif way == "torn shard":
        shard.write_bytes(shard.read_bytes()[:200])
    elif way == "rotten shard":
        content = bytearray(shard.read_bytes())
        content[500] ^= 1
        shard.write_bytes(content)
    return "cannot be read as a SavedModel"


WAYS = [
    "no graph",
    "empty graph",
    "torn graph",
    "rotten graph",
    "rotten constant",
    "torn fingerprint",
    "no variables",
    "no shard",
    "torn shard",
    "rotten shard",
]


class TestHealing:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.slow
    def test_a_damaged_copy_is_named_and_fetched_again(self, way, server, cache, capsys):
        handle = server.handle_for(PATH)
        features = FrozenBackbone(handle)(images(2))
        (cache / "somebody_else").mkdir()
        reason = damaged(way, place(cache, handle))
        np.testing.assert_array_equal(FrozenBackbone(handle)(images(2)), features)
        assert reason in (printed := capsys.readouterr().out)
        assert str(place(cache, handle)) in printed
        assert server.asked == [PATH] * 2
        assert {path.suffix for path in cache.iterdir()} == {"", ".busy"}
        assert (cache / "somebody_else").is_dir()

    def test_a_damaged_copy_offline_is_named_with_both_ways_out(self, folder, cache, capsys):
        handle = offline()
        shutil.copytree(folder, place(cache, handle))
        damage = damaged("torn shard", place(cache, handle))
        with pytest.raises(
            OSError, match=r"cannot be fetched .* its copy in .* is damaged\. Go on"
        ):
            FrozenBackbone(handle)
        assert damage in capsys.readouterr().out
        assert [p.name for p in cache.iterdir() if p.is_dir()] == [place(cache, handle).name]

    def test_a_download_that_breaks_off_leaves_nothing_behind(self, server, cache):
        server.cut = len(server.modules[PATH]) // 2
        handle = server.handle_for(PATH)
        with pytest.raises(OSError, match="cannot be fetched"):
            download.folder_of(handle)
        assert not place(cache, handle).exists()
        assert download.folder_of(handle).is_dir()

    def test_a_link_in_the_cache_is_not_followed(self, server, cache, tmp_path):
        handle = server.handle_for(PATH)
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        (theirs / "letter.txt").write_text("dear")
        cache.mkdir()
        place(cache, handle).symlink_to(theirs)
        assert not download.folder_of(handle).is_symlink()
        assert [path.name for path in theirs.iterdir()] == ["letter.txt"]


def hostile(outside: Path):
    """Archives that would write, or read, outside the folder that they are unpacked into."""

    def made(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", then: str = ""):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for member in map(tarfile.TarInfo, filter(None, (name, then))):
                if member.name == name:
                    member.type, member.linkname = kind, link
                member.size = 4 if member.type == tarfile.REGTYPE else 0
                tar.addfile(member, io.BytesIO(b"evil"))
        return buffer.getvalue()

    yield "lies outside of it", made("../out")
    yield "lies outside of it", made("variables/../../../out")
    yield "lies outside of it", made(str(outside))
    yield "cannot be unpacked", made(".")
    yield "cannot be unpacked", made("a", then="a/b")
    yield "cannot be unpacked", made("a" * 300)
    yield "lies 2001 folders deep", made("a/" * 2000 + "b")
    yield "is a link, a device or sparse", made("l", tarfile.SYMTYPE, str(outside.parent), "l/out")
    yield "is a link, a device or sparse", made("l", tarfile.LNKTYPE, "/etc/passwd")
    yield "is a link, a device or sparse", made("l", tarfile.LNKTYPE, "../../../out")
    yield "is a link, a device or sparse", made("l", tarfile.FIFOTYPE)


class TestLocal:
    @pytest.mark.slow
    def test_an_archive_gives_the_same_as_its_folder(self, folder, cache, tmp_path):
        for name, content in (("a.tar.gz", archive(folder)), ("b.tgz", archive(folder.parent))):
            (tmp_path / name).write_bytes(content)
            found = FrozenBackbone(str(tmp_path / name))(images(2))
            np.testing.assert_array_equal(found, FrozenBackbone(folder)(images(2)))

    def test_a_hostile_archive_is_refused_and_writes_nothing(self, cache, server, tmp_path):
        for reason, content in hostile(tmp_path / "out"):
            (tmp_path / "evil.tar.gz").write_bytes(content)
            with pytest.raises((OSError, ValueError), match=reason) as error:
                download.folder_of(tmp_path / "evil.tar.gz")
            assert str(cache) not in str(error.value)
            server.modules["/evil"] = content
            with pytest.raises(OSError, match=f"cannot be fetched: .*{reason}"):
                download.folder_of(server.handle_for("/evil"))
            assert {path.name for path in tmp_path.iterdir()} == {"cache", "evil.tar.gz"}
            assert {path.suffix for path in cache.iterdir()} == {".busy"}

    @pytest.mark.slow
    def test_an_archive_that_unfolds_to_far_more_is_refused(self, cache, tmp_path, monkeypatch):
        monkeypatch.setattr(unpacking, "_LEAST_LIMIT", 2**23)
        for reason, content in [
            ("a link, a device or sparse", sparse()),
            (
                "it unfolds to more than [0-9,]+ bytes",
                gzip.compress(header("big", 2**33) + bytes(9 << 20)),
            ),
            ("a header of 20,971,520 bytes", gzip.compress(digits(20 << 20)[:1024])),
            ("cannot be unpacked", gzip.compress(digits(2**14))),
            ("more than 10,000 members", gzip.compress(header("d", 0) * 10_001)),
            ("a link, a device or sparse", gzip.compress(pax(b"GNU.sparse.size=99999999999"))),
            ("cannot be unpacked", gzip.compress(pax(b"size=99999999999"))),
            ("cannot be unpacked", gzip.compress(header("x", 0, tarfile.XHDTYPE) * 5000)),
            ("it holds no files", gzip.compress(bytes(1024))),
            ("saved_model.pb is missing", gzip.compress(header("./", 0, b"5") + bytes(1024))),
        ]:
            (tmp_path / "evil.tar.gz").write_bytes(content)
            with pytest.raises((OSError, ValueError), match=reason) as error:
                download.folder_of(tmp_path / "evil.tar.gz")
            assert str(cache) not in str(error.value)
            assert {path.suffix for path in cache.iterdir()} == {".busy"}

    def test_an_archive_of_which_one_bit_changed_is_refused(self, folder, cache, tmp_path):
        content = bytearray(archive(folder))
        content[-6] ^= 1  # of the checksum at the end
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(OSError, match=r"a.tar.gz cannot be unpacked \(CRC check failed"):
            FrozenBackbone(tmp_path / "a.tar.gz")

    def test_an_archive_is_unpacked_once(self, folder, cache, tmp_path):
        (tmp_path / "a.tar.gz").write_bytes(archive(folder))
        shutil.copy(tmp_path / "a.tar.gz", tmp_path / "b.tar.gz")
        first = download.folder_of(tmp_path / "a.tar.gz")
        assert download.folder_of(tmp_path / "b.tar.gz") == first
        assert first.parent == cache
        assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
        (tmp_path / "a.tar.gz").write_bytes(archive(folder.parent))
        assert download.folder_of(tmp_path / "a.tar.gz") != first

    def test_a_damaged_copy_of_an_archive_is_unpacked_again(self, folder, cache, tmp_path, capsys):
        (tmp_path / "a.tar.gz").write_bytes(archive(folder))
        features = FrozenBackbone(tmp_path / "a.tar.gz")(images(1))
        reason = damaged("rotten shard", download.folder_of(tmp_path / "a.tar.gz"))
        np.testing.assert_array_equal(FrozenBackbone(tmp_path / "a.tar.gz")(images(1)), features)
        assert reason in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("kind", "mode"),
        [(tarfile.PAX_FORMAT, "w:gz"), (tarfile.GNU_FORMAT, "w"), (tarfile.USTAR_FORMAT, "w:gz")],
    )
    def test_archives_of_all_formats_are_unpacked(self, kind, mode, tmp_path):
        source, out = tmp_path / "module", tmp_path / "out"
        names = ("saved_model.pb", "assets/" + "n" * 90, "assets/" + ("n" * 60 + "/") * 2 + "x")
        if kind != tarfile.USTAR_FORMAT:
            names = (*names, "assets/" + "n" * 200, "assets/" + ("é" * 60 + "/") * 3 + "ü")
        for number, name in enumerate(names):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(bytes([number]) * 700 * number)
        with tarfile.open(tmp_path / "m.tar", mode, format=kind) as tar:
            tar.add(source, arcname="module")
        out.mkdir()
        with (tmp_path / "m.tar").open("rb") as file:
            unpack(file, out, "m.tar")
        written, found = (
            {p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()}
            for top in (source, out / "module")
        )
        assert found == written

    def test_an_archive_that_breaks_off_is_named(self, folder, cache, tmp_path):
        (tmp_path / "half.tar.gz").write_bytes(archive(folder)[:-2000])
        with pytest.raises(OSError, match=r"half.tar.gz cannot be unpacked"):
            download.folder_of(tmp_path / "half.tar.gz")
        (tmp_path / "text.tar.gz").write_text("no archive")
        with pytest.raises(OSError, match=r"text.tar.gz cannot be unpacked"):
            download.folder_of(tmp_path / "text.tar.gz")
        with pytest.raises(FileNotFoundError, match=r"none.tar.gz does not exist"):
            FrozenBackbone(tmp_path / "none.tar.gz")

    def test_a_folder_that_is_no_saved_model_is_named(self, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").touch()
        with pytest.raises(OSError, match=r"saved_model.pb is missing.*Found: cat.jpg"):
            FrozenBackbone(str(tmp_path / "photos"))
        with pytest.raises(FileNotFoundError, match=r"is no folder. Expected a SavedModel folder"):
            FrozenBackbone(str(tmp_path / "nothing"))

    @pytest.mark.parametrize("way", ["no graph", "torn graph", "rotten constant"])
    def test_a_damaged_folder_is_named_and_left_alone(self, way, folder, tmp_path):
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        reason = damaged(way, copy)
        with pytest.raises(OSError, match=reason):
            FrozenBackbone(copy)
        assert copy.is_dir()


class TestCache:
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path, monkeypatch):
        monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))

    def test_without_a_choice_it_is_a_folder_of_the_user_alone(self, server, tmp_path):
        folder = download.folder_of(server.handle_for(PATH))
        assert folder.parent == tmp_path / ".cache" / "keras_transfer" / "modules"
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700

    @pytest.mark.parametrize("chosen", [True, False])
    def test_a_folder_of_somebody_else_is_refused(self, chosen, server, tmp_path, monkeypatch):
        folder = tmp_path / ".cache" / "keras_transfer" / "modules"
        if chosen:  # as in the folder for temporary files
            folder = tmp_path / "for all" / "chosen"
            monkeypatch.setenv("TFHUB_CACHE_DIR", str(folder / "below"))
        folder.mkdir(parents=True)
        if chosen:
            folder.parent.chmod(0o1777)
        if os.geteuid() == 0:
            os.chown(folder, 4321, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
        with pytest.raises(OSError, match=r"is not safe: .* user \d+.*TFHUB_CACHE_DIR"):
            download.folder_of(server.handle_for(PATH))
        assert not server.asked

    @pytest.mark.parametrize("chosen", [True, False])
    def test_a_folder_that_all_can_write_to_is_refused(self, chosen, server, tmp_path, monkeypatch):
        folder = tmp_path / ".cache" / "keras_transfer" / "modules"
        if chosen:
            folder = tmp_path / "chosen"
            monkeypatch.setenv("TFHUB_CACHE_DIR", str(folder))
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        with pytest.raises(OSError, match=r"not safe: every user may write to it.*TFHUB_CACHE_DIR"):
            download.folder_of(server.handle_for(PATH))
        assert not server.asked

    @pytest.mark.slow
    def test_a_folder_that_cannot_be_made_is_named(self, server, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file" / "cache"))
        with pytest.raises(OSError, match=r"cannot be made \(.*Set TFHUB_CACHE_DIR to another"):
            download.folder_of(server.handle_for(PATH))


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The header of a member."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def sparse() -> bytes:
    """A file of two gigabytes that holds nothing, in the old format of GNU."""
    block = bytearray(header("saved_model.pb", 0, tarfile.GNUTYPE_SPARSE))
    block[483:495] = b"%011o\0" % 2**31
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + bytes(1024))


def digits(size: int) -> bytes:
    """A pax header of digits only, which Python's tarfile searches for hours."""
    return header("x", size, tarfile.XHDTYPE) + b"1" * size


def pax(record: bytes) -> bytes:
    """A member of which a pax header tells something."""
    line = b" " + record + b"\n"
    line = str(len(line) + 2).encode() + line
    return (
        header("x", len(line), tarfile.XHDTYPE)
        + line.ljust(512, b"\0")
        + header("saved_model.pb", 0)
        + bytes(1024)
    )
