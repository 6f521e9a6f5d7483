"""Fetching: torchvision's own code against a web server on this machine, and against servers that misbehave."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from ensemble.config.schema import DataConfig
from ensemble.data import downloads, load_dataset
from ensemble.errors import DataError

NAMES = [f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]


class Server(http.server.ThreadingHTTPServer):
    """Serves the given files and remembers which were asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, write_dataset, monkeypatch):
    """A mirror of a generated Fashion-MNIST, and torchvision pointed at it; tmp_path/store is the empty root."""
    drawn = write_dataset("fashion_mnist")
    folder = tmp_path / "FashionMNIST" / "raw"
    files = {f"{name}.gz": gzip.compress((folder / name).read_bytes(), mtime=0) for name in NAMES}
    mirror = Server(files)
    thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    point_torchvision_at(monkeypatch, f"http://127.0.0.1:{mirror.server_port}/", files)
    mirror.drawn = drawn
    yield mirror
    mirror.shutdown()
    thread.join()
    mirror.server_close()


def point_torchvision_at(monkeypatch, url: str, files: dict[str, bytes]) -> None:
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [url])
    monkeypatch.setattr(datasets.FashionMNIST, "resources", sums)


def config(root: Path, **changes) -> DataConfig:
    return DataConfig(name="fashion_mnist", root=str(root), **changes)


def test_missing_files_are_fetched_in_silence(tmp_path, server, capfd):
    dataset = load_dataset(config(tmp_path / "store"))
    np.testing.assert_array_equal(dataset.train_images_NCHW[:, 0], server.drawn["train_images"])
    np.testing.assert_array_equal(dataset.test_labels_N, server.drawn["test_labels"])
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_files_that_are_there_are_not_fetched(tmp_path, server):
    load_dataset(config(tmp_path))
    assert server.asked == []


def test_nothing_is_fetched_when_that_is_forbidden(tmp_path, server):
    with pytest.raises(DataError, match=r"data\.download is false"):
        load_dataset(config(tmp_path / "store", download=False))
    assert server.asked == []
    assert not (tmp_path / "store").exists()


def test_damaged_file_is_moved_aside_and_fetched_again(tmp_path, server, caplog):
    path = tmp_path / "FashionMNIST" / "raw" / NAMES[0]
    os.truncate(path, 1000)
    dataset = load_dataset(config(tmp_path))
    np.testing.assert_array_equal(dataset.train_images_NCHW[:, 0], server.drawn["train_images"])
    assert path.with_name(path.name + ".damaged").stat().st_size == 1000
    assert "found 1000 bytes" in caplog.text


def test_file_that_stays_wrong_is_an_error_after_one_more_try(tmp_path, server, monkeypatch, encode_idx):
    server.files[f"{NAMES[1]}.gz"] = gzip.compress(encode_idx(np.full(60, 77, np.uint8)), mtime=0)
    point_torchvision_at(monkeypatch, datasets.FashionMNIST.mirrors[0], server.files)
    with pytest.raises(DataError) as caught:
        load_dataset(config(tmp_path / "store"))
    assert "60 labels out of range (row 0: 77" in str(caught.value)
    assert "after downloading once more" in str(caught.value)
    assert server.asked.count(f"{NAMES[1]}.gz") <= 2  # torchvision first follows redirects, then fetches


def test_wrong_sum_of_a_download(tmp_path, server):
    server.files[f"{NAMES[0]}.gz"] = b"<html>login</html>"
    with pytest.raises(DataError) as caught:
        load_dataset(config(tmp_path / "store"))
    assert "Downloading them failed" in str(caught.value)
    assert "corrupted" in str(caught.value)


def test_no_server(tmp_path, server, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        point_torchvision_at(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}/", server.files)
        with pytest.raises(DataError) as caught:
            load_dataset(config(tmp_path / "store"))
    message = str(caught.value)
    assert "refused" in message
    assert str(tmp_path / "store" / "FashionMNIST" / "raw" / NAMES[0]) in message
    for advice in ("network or proxy", "ENSEMBLE_DATA", "data.root"):
        assert advice in message


def test_silent_server_does_not_hang_the_run(tmp_path, server, monkeypatch):
    monkeypatch.setattr(downloads, "STALL_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_torchvision_at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/", server.files)
        with pytest.raises(DataError, match="timed out"):
            load_dataset(config(tmp_path / "store"))
    assert socket.getdefaulttimeout() is None


def test_root_that_cannot_be_written(tmp_path, server):
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(DataError, match="Downloading them failed"):
        load_dataset(config(tmp_path / "store"))
