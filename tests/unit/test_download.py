"""Downloads against a server on this machine that breaks off, lies and changes its mind."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from magbench import download as module
from magbench.download import download
from magbench.errors import DownloadError, MissingWeightsError
from tests.unit.download_server import Server, serving

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "BLOCK", 10_000)
    with serving(CONTENT) as found:
        yield found


def get(server: Server, target: Path, url: str = "") -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    download(
        url or server.url,
        target,
        check=lambda size: None,
        accept=lambda part: None,
        progress=lambda done, total: seen.append((done, total)),
        waiting=lambda: None,
    )
    return seen


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith(".lock"))


def test_a_whole_file_arrives_and_nothing_else_stays(server: Server, tmp_path: Path) -> None:
    seen = get(server, tmp_path / "new" / "w.bin")
    assert (tmp_path / "new" / "w.bin").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["w.bin"]
    assert seen[-1] == (300_000, 300_000)
    assert server.asked == [""]


def test_what_is_there_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"mine")
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == b"mine"
    assert server.asked == []


def test_a_broken_connection_is_continued_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [70_000, 50_000]
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=70000-", "bytes=120000-"]


def broken_off(server: Server, target: Path, at: int) -> None:
    """Leave a part file, as a process that gave up does."""
    server.cuts = [at] + [0] * module.ATTEMPTS
    with pytest.raises(DownloadError, match=rf"broke after {at} of 300000 bytes, {module.ATTEMPTS} times in a row"):
        get(server, target)
    assert names(target.parent) == [f"{target.name}.part", f"{target.name}.part.json"]
    assert (target.parent / f"{target.name}.part").stat().st_size == at
    server.asked.clear()


def test_a_later_command_continues(server: Server, tmp_path: Path) -> None:
    broken_off(server, tmp_path / "w.bin", 123_456)
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert server.asked == ["bytes=123456-"]
    assert names(tmp_path) == ["w.bin"]


def test_a_server_that_ignores_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    broken_off(server, tmp_path / "w.bin", 123_456)
    server.ranges = False
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_never_mixed(server: Server, tmp_path: Path) -> None:
    broken_off(server, tmp_path / "w.bin", 123_456)
    server.content, server.etag = CONTENT[::-1], '"two"'
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT[::-1]


def test_without_a_version_nothing_is_continued(server: Server, tmp_path: Path) -> None:
    server.etag = ""
    server.cuts = [123_456]
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert server.asked == ["", ""]


def test_a_wrong_part_is_thrown_away(server: Server, tmp_path: Path) -> None:
    broken_off(server, tmp_path / "w.bin", 123_456)
    server.shift = 5
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_a_part_of_another_address_or_larger_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    broken_off(server, tmp_path / "w.bin", 1000)
    get(server, tmp_path / "w.bin", server.url + "?other")
    assert server.asked == [""]
    (tmp_path / "w.bin").unlink()
    broken_off(server, tmp_path / "w.bin", 1000)
    with (tmp_path / "w.bin.part").open("ab") as file:
        file.write(bytes(400_000))
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_a_part_that_was_complete_is_taken(server: Server, tmp_path: Path) -> None:
    broken_off(server, tmp_path / "w.bin", 299_999)
    with (tmp_path / "w.bin.part").open("ab") as file:
        file.write(CONTENT[-1:])
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert server.asked == []


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "hint"), [(404, "has moved"), (403, "may need an account"), (410, "has moved")])
def test_a_refusal_is_final(server: Server, tmp_path: Path, status: int, hint: str) -> None:
    server.statuses = [status]
    with pytest.raises(DownloadError, match=f"the server says {status}") as caught:
        get(server, tmp_path / "w.bin")
    assert hint in str(caught.value.hint)
    assert names(tmp_path) == []
    assert server.asked == []


def test_no_server_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with serving(b"x") as gone:
        pass
    with pytest.raises(DownloadError, match="no connection"):
        get(gone, tmp_path / "w.bin")


def test_a_web_page_is_no_file(server: Server, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="sends a web page"):
        get(server, tmp_path / "w.bin")
    assert names(tmp_path) == []


@pytest.mark.parametrize("announced", ["0", "many"])
def test_a_file_of_unknown_size_is_refused(server: Server, tmp_path: Path, announced: str) -> None:
    server.announced = announced
    with pytest.raises(DownloadError, match="doesn't say how large"):
        get(server, tmp_path / "w.bin")


def test_more_than_the_disk_holds_is_refused_before_it_is_fetched(server: Server, tmp_path: Path) -> None:
    server.announced = str(10**18)
    with pytest.raises(DownloadError, match="1000000000000 MB are needed"):
        get(server, tmp_path / "w.bin")


@pytest.mark.parametrize(
    "url", ["http://example.org/w", "file:///etc/passwd", "ftp://127.0.0.1/w", "http://127.0.0.1.example.org/w", "w"]
)
def test_only_https_is_allowed(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="only https"):
        get(Server(b""), tmp_path / "w.bin", url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["http://example.org/w", "file:///etc/passwd"])
def test_redirects_lead_to_no_less_safe_place(server: Server, tmp_path: Path, place: str) -> None:
    server.statuses, server.location = [302], place
    with pytest.raises(DownloadError, match=r"only https|302"):
        get(server, tmp_path / "w.bin")


def test_redirects_are_followed_but_not_for_ever(server: Server, tmp_path: Path) -> None:
    server.statuses, server.location = [302, 302], server.url
    get(server, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    server.statuses, server.location = [302] * 50, server.url
    with pytest.raises(DownloadError, match="the server says 302"):
        get(server, tmp_path / "again.bin")


def test_what_is_not_accepted_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def refuse(part: Path) -> None:
        assert part.read_bytes() == CONTENT
        raise MissingWeightsError("not it")

    with pytest.raises(MissingWeightsError, match="not it"):
        download(server.url, tmp_path / "w", lambda size: None, refuse, lambda done, total: None, lambda: None)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_to(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot write to .*file: "):
        get(server, tmp_path / "file" / "w.bin")


def test_two_at_once_fetch_a_file_once(server: Server, tmp_path: Path) -> None:
    server.gate = threading.Event()
    first = threading.Thread(target=get, args=(server, tmp_path / "w.bin"))
    first.start()
    while not server.asked:
        first.join(0.01)
    waited: list[bool] = []

    def waiting() -> None:
        waited.append(True)
        assert server.gate is not None
        server.gate.set()

    download(server.url, tmp_path / "w.bin", lambda size: None, lambda part: None, lambda done, total: None, waiting)
    first.join(10)
    assert waited == [True]
    assert server.asked == [""]
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
