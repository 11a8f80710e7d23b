"""Files are fetched whole or not at all: over broken lines, from mirrors, by processes that race or are killed."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time

import pytest

from keras_ssl.zoo import cache, download
from keras_ssl.zoo.cache import ZooError
from keras_ssl.zoo.published import File
from tests.zoo.file_server import Page, serving

DATA = bytes(range(256)) * 1200  # 307,200 bytes
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setenv("KERAS_SSL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def said():
    return []


def fetch(server, tmp_path, said, *paths, **facts):
    file = File("file.pth", tuple(server.url(path) for path in paths), **facts)
    return download.fetch(file, tmp_path / "out" / "file.pth", said.append)


def only_the_file(tmp_path):
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file.pth"]
    assert (tmp_path / "out/file.pth").read_bytes() == DATA


def test_a_file_is_fetched_and_hashed(server, tmp_path, said):
    server.pages["/a"] = Page(DATA)
    known = {"size": len(DATA), "sha256": SHA256[:8], "md5": MD5[:6], "hash_source": "official"}
    fetched = fetch(server, tmp_path, said, "/a", **known)
    assert fetched == download.Fetched(server.url("/a"), len(DATA), SHA256)
    only_the_file(tmp_path)
    assert said == [f"fetching file.pth, 0.3 MB, from {server.url('/a')}"]


def test_it_goes_on_where_the_connection_broke(server, tmp_path, said):
    server.pages["/a"] = Page(DATA, breaks=[100_000, 50_000])
    fetch(server, tmp_path, said, "/a")
    only_the_file(tmp_path)
    assert [wanted for _, wanted in server.log] == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.parametrize("length", [True, False])
def test_without_etag_it_starts_again_unless_a_hash_is_known(server, tmp_path, said, length):
    server.pages["/a"] = Page(DATA, etag="", breaks=[100_000])
    fetch(server, tmp_path, said, "/a")
    assert [wanted for _, wanted in server.log] == [None, None]
    only_the_file(tmp_path)
    (tmp_path / "out/file.pth").unlink()
    server.log.clear()
    server.pages["/a"] = Page(DATA, etag="", breaks=[100_000], length=length)
    fetch(server, tmp_path, said, "/a", size=len(DATA), sha256=SHA256, hash_source="official")
    only_the_file(tmp_path)
    assert [wanted for _, wanted in server.log] == [None, "bytes=100000-"]


def test_a_server_without_ranges_is_asked_again_from_the_start(server, tmp_path, said):
    server.pages["/a"] = Page(DATA, ranges=False, breaks=[100_000, 200_000])
    fetch(server, tmp_path, said, "/a")
    only_the_file(tmp_path)
    assert len(server.log) == 3


def test_a_file_that_changed_in_between_is_not_put_together(server, tmp_path, said):
    server.pages["/a"] = Page(DATA[::-1], etag='"old"', breaks=[100_000] + [0] * 9)
    with pytest.raises(ZooError, match="broke off after 100000 of 307200"):
        fetch(server, tmp_path, said, "/a")
    assert (tmp_path / "out/file.pth.part").stat().st_size == 100_000
    server.pages["/a"] = Page(DATA, etag='"new"')
    fetch(server, tmp_path, said, "/a")
    only_the_file(tmp_path)


def test_parts_that_do_not_fit_are_found_by_the_hash(server, tmp_path, said):
    """Without a validator the first half of another file is taken for ours, until the hash tells."""
    server.pages["/a"] = Page(DATA[::-1], etag="", breaks=[100_000] + [0] * 9)
    known = {"sha256": SHA256, "hash_source": "official"}
    with pytest.raises(ZooError):
        fetch(server, tmp_path, said, "/a", **known)
    server.pages["/a"] = Page(DATA, etag="")
    fetch(server, tmp_path, said, "/a", **known)
    only_the_file(tmp_path)
    assert "file.pth was put together from parts that do not fit; once more." in said


def test_mirrors_are_tried_in_order(server, tmp_path, said):
    server.pages["/wrong"] = Page(DATA[:-1] + b"x")
    server.pages["/right"] = Page(DATA)
    fetched = fetch(
        server, tmp_path, said, "/gone", "/wrong", "/right", sha256=SHA256, hash_source="official"
    )
    assert fetched.url == server.url("/right")
    only_the_file(tmp_path)
    assert [path for path, _ in server.log] == ["/gone", "/wrong", "/right"]
    assert said[0] == f"{server.url('/gone')} answers 404 Not Found."
    assert "gave another file" in said[2] and "WRONG" not in said[2]


def test_a_server_that_never_ends_is_left_at_the_known_size(server, tmp_path, said):
    server.pages["/a"] = Page(DATA + bytes(1 << 20), length=False)
    with pytest.raises(ZooError, match=f"gives more than {len(DATA)} bytes"):
        fetch(server, tmp_path, said, "/a", size=len(DATA))
    assert list((tmp_path / "out").iterdir()) == []
    assert len(server.log) == 1


def test_what_may_be_a_secret_in_an_address_is_neither_shown_nor_kept(server, tmp_path, said):
    server.pages["/a?key=SECRET"] = Page(DATA, breaks=[100_000] + [0] * 9)
    with pytest.raises(ZooError) as error:
        fetch(server, tmp_path, said, "/a?key=SECRET")
    server.pages.clear()
    with pytest.raises(ZooError, match="answers 404") as second:
        fetch(server, tmp_path, said, "/a?key=SECRET")
    kept = (tmp_path / "out/file.pth.part.json").read_text()
    assert server.url("/a") in kept
    assert "SECRET" not in f"{error.value} {second.value} {kept} {said}"
    plain = download.without_query("https://me:SECRET@example.org/a/b?SECRET#SECRET")
    assert plain == "https://example.org/a/b"
    assert download.without_query("/tmp/a?b") == "/tmp/a?b"


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path, said):
    server.pages["/a"] = Page(DATA[:-1] + b"x")
    match = f"file.pth with SHA-256 begins with {SHA256[:8]} \\(official\\). Received: SHA256 "
    with pytest.raises(ZooError, match=match):
        fetch(server, tmp_path, said, "/a", sha256=SHA256[:8], hash_source="official")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ZooError, match=f"has {len(DATA)} bytes, expected 5"):
        fetch(server, tmp_path, said, "/a", size=5)


def test_errors_of_the_server_that_pass_are_waited_for(server, tmp_path, said):
    server.pages["/a"] = Page(DATA, statuses=[503, 429, 500])
    fetch(server, tmp_path, said, "/a")
    only_the_file(tmp_path)
    assert len(server.log) == 4


def test_redirects_are_followed_but_not_to_files(server, tmp_path, said):
    server.pages["/a"] = Page(location=server.url("/b"))
    server.pages["/b"] = Page(DATA)
    fetch(server, tmp_path, said, "/a")
    only_the_file(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    server.pages["/c"] = Page(location=secret.as_uri())
    with pytest.raises(ZooError, match="not allowed"):
        fetch(server, tmp_path, said, "/c")


def test_from_an_encrypted_address_no_redirect_to_a_plain_one():
    request = download.urllib.request.Request("https://example.org/a")
    with pytest.raises(download._Unusable, match="which is not encrypted"):
        download._Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/b")


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(server, tmp_path, said, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    server.pages["/slow"] = Page(DATA, pause=0.03)  # 0.6 s in all
    fetch(server, tmp_path, said, "/slow")
    only_the_file(tmp_path)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.pages["/silent"] = Page(DATA, pause=1.0, etag="", length=False)
    with pytest.raises(ZooError, match="cannot be reached .*timed out"):
        fetch(server, tmp_path, said, "/silent")


def test_without_network_it_says_what_to_do(tmp_path, said):
    with serving() as server:
        url = server.url("/a")  # closed again: nobody listens there
    with pytest.raises(ZooError) as error:
        download.fetch(File("a.pth", (url,)), tmp_path / "out" / "a.pth", said.append)
    text = str(error.value)
    assert f"{url} cannot be reached" in text and "Connection refused" in text
    assert "give it with weights=FILE (--weights FILE)" in text and "\n" not in text


def test_a_full_disk_is_told_from_a_broken_line(server, tmp_path, said, monkeypatch):
    server.pages["/a"] = Page(DATA)
    with monkeypatch.context() as patch, pytest.raises(ZooError, match=r"free space .* Received"):
        usage = download.shutil.disk_usage(tmp_path)._replace(free=100)
        patch.setattr(download.shutil, "disk_usage", lambda path: usage)
        fetch(server, tmp_path, said, "/a")

    def full(*arguments):
        raise OSError(download.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(ZooError, match="make room, .*No space left"):
        fetch(server, tmp_path, said, "/a")
    assert len(server.log) == 2


PROCESS = """
import json, sys
from keras_ssl.zoo import cache, origin
from keras_ssl.zoo.published import File, Published
url, say = sys.argv[1], []
entry = Published("tiny", "m", "s", "resnet18", "l", "mit", (File("file.pth", (url,)),))
with cache.locked("tiny", say.append):
    source = origin.fetch_published(entry, say.append)
    origin.pin_files(entry, source)
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(json.dumps([source.sha256, say]))
"""


def start(url, env, tmp_path):
    env = {**env, "KERAS_SSL_HOME": str(tmp_path / "home"), "no_proxy": "*"}
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, url], env=env, stdout=subprocess.PIPE, text=True
    )


def test_of_two_processes_one_fetches_and_the_other_waits(server, tmp_path, subprocess_env):
    server.pages["/a"] = Page(DATA, pause=0.05)  # one second
    processes = [start(server.url("/a"), subprocess_env, tmp_path) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [sha256 for sha256, _ in results] == [SHA256, SHA256]
    assert [path for path, _ in server.log] == ["/a"]
    waited = [say for _, say in results if "another process works on tiny; waiting for it." in say]
    assert len(waited) == 1
    assert list(cache.read_pins()) == ["tiny/file.pth"]


def test_a_killed_download_is_gone_on_with(server, tmp_path, subprocess_env):
    server.pages["/a"] = Page(DATA, pause=0.2)
    process = start(server.url("/a"), subprocess_env, tmp_path)
    part = tmp_path / "home/zoo/files/tiny/file.pth.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 30_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = part.stat().st_size
    assert 30_000 < there < len(DATA)
    server.pages["/a"].pause = 0
    result = start(server.url("/a"), subprocess_env, tmp_path).communicate(timeout=60)[0]
    assert json.loads(result)[0] == SHA256
    assert server.log[-1] == ("/a", f"bytes={there}-")
    assert (part.parent / "file.pth").read_bytes() == DATA
