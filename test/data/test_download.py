"""Downloads from a server on this machine: resumed, checked, safely unpacked."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from audiorl.data.download import fetch, unpacked
from audiorl.errors import UserError

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `cut` bytes at most in each answer, ranges if `ranges`."""

    cut: int = 1 << 30
    ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/corpus.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path != "/corpus.tar.gz":
            return self.send_error(404)
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if asked and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.server.cut])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_file_arrives_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "corpus.tar.gz"
    fetch(server.url, path, SHA256)
    fetch(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert list(path.parent.iterdir()) == [path]


def test_a_broken_connection_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.cut = 2_000_000
    fetch(server.url, tmp_path / "corpus.tar.gz", SHA256)
    assert (tmp_path / "corpus.tar.gz").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=2000000-", "bytes=4000000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_later_call_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT[:3_000_000])
    server.ranges = ranges
    fetch(server.url, tmp_path / "corpus.tar.gz", SHA256)
    assert (tmp_path / "corpus.tar.gz").read_bytes() == CONTENT
    assert server.asked == ["bytes=3000000-"]


def test_a_part_that_is_whole_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT)
    fetch(server.url, tmp_path / "corpus.tar.gz", SHA256)
    assert (tmp_path / "corpus.tar.gz").read_bytes() == CONTENT


def test_without_progress_it_stops_and_keeps_what_is_there(server: Server, tmp_path: Path) -> None:
    server.cut = 0
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT[:1_000_000])
    with pytest.raises(UserError, match=r"stopped at 1 MB .* run the same command again"):
        fetch(server.url, tmp_path / "corpus.tar.gz", SHA256)
    assert (tmp_path / "corpus.tar.gz.part").stat().st_size == 1_000_000


def test_wrong_content_is_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sha256 checksum is \w+, not 00; the file was removed"):
        fetch(server.url, tmp_path / "corpus.tar.gz", "sha256:00")
    assert list(tmp_path.iterdir()) == []


def test_a_size_will_do_where_there_is_no_checksum(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "corpus.tar.gz"
    with pytest.raises(UserError, match=f"the size is {len(CONTENT)}, not 5; the file was removed"):
        fetch(server.url, path, "size:5")
    assert not list(tmp_path.iterdir())
    fetch(server.url, path, f"size:{len(CONTENT)}")
    assert path.read_bytes() == CONTENT


def test_nothing_at_that_address(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tgz: stopped at 0 MB \(Not Found\)"):
        fetch(server.url.replace("corpus.tar.gz", "none.tgz"), tmp_path / "none.tgz", SHA256)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refused"):
        fetch("http://127.0.0.1:9/corpus.tgz", tmp_path / "corpus.tgz", SHA256)


def archive(path: Path, *members: tuple[str, bytes], link: str = "") -> Path:
    with tarfile.open(path, "w:bz2" if path.suffix == ".bz2" else "w:gz") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            tar.addfile(entry)
    return path


def test_what_stays_in_the_folder_is_removed(tmp_path: Path) -> None:
    made = archive(tmp_path / "x.tgz", ("a/one.txt", b"1"), ("a/two.txt", b"2"))
    with unpacked(made) as content:
        assert (content / "a" / "two.txt").read_bytes() == b"2"
        (content / "a" / "one.txt").rename(tmp_path / "one.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.txt", "x.tgz"]


@pytest.mark.parametrize(
    ("member", "link"), [("../outside.txt", ""), ("a.txt", "../outside.txt"), ("a", "/etc/passwd")]
)
def test_nothing_leaves_the_folder(tmp_path: Path, member: str, link: str) -> None:
    (tmp_path / "deep").mkdir()
    made = archive(tmp_path / "deep" / "x.tgz", (member, b"harm"), link=link)
    with pytest.raises(UserError, match="cannot be unpacked"), unpacked(made):
        raise AssertionError("it was unpacked")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x.tgz"]


def test_bzip2(tmp_path: Path) -> None:
    with unpacked(archive(tmp_path / "x.tar.bz2", ("a.txt", b"1"))) as content:
        assert (content / "a.txt").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["x.tgz", "x.tar.bz2"])
@pytest.mark.parametrize("content", [b"", b"not a tar", None])
def test_a_damaged_archive(tmp_path: Path, name: str, content: bytes | None) -> None:
    made = archive(tmp_path / name, ("a.txt", CONTENT))
    whole = made.read_bytes()
    made.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=rf"{name} cannot be unpacked .* remove it"), unpacked(made):
        raise AssertionError("it was unpacked")
    assert list(tmp_path.iterdir()) == [made]
