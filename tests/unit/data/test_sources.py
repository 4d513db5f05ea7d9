"""Logs by name against a server of our own: what comes, what is refused, what is left behind."""

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from martlet.core import DataError, OutputError
from martlet.data import sources
from martlet.data.sources import Archive, Source, SourceUnavailable, cache_folder, get

LOG = b"user_id,item_id\na,x\nb,y\n"
FILES = {"log.csv": LOG}


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


ZIP = zipped({"toy/log.csv": LOG})
WHEEL_NAME = "toylog-1.0-py3-none-any.whl"
WHEEL = zipped(
    {
        "toylog/data/log.csv": LOG,
        "toylog-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toylog\nVersion: 1.0\n",
        "toylog-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
        "toylog-1.0.dist-info/RECORD": b"",
    }
)


def just_the_log(members):
    return {"log.csv": next(iter(members.values()))}


class Server:
    """Serves ``pages``; a page in ``cut`` ends halfway; ``asked`` remembers the paths."""

    def __init__(self):
        self.pages, self.cut, self.asked, self.wait_s = {}, set(), [], 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                time.sleep(outer.wait_s)
                data = outer.pages.get(self.path)
                self.send_response(404 if data is None else 200)
                kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(
                    (data or b"")[: len(data) // 2 if self.path in outer.cut else None]
                )

            def log_message(self, *words):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def publish_wheel(self, data=WHEEL):
        link = f'<a href="/wheels/{WHEEL_NAME}#sha256={digest(data)}">{WHEEL_NAME}</a>'
        self.pages |= {"/simple/toylog/": link.encode(), f"/wheels/{WHEEL_NAME}": data}


@pytest.fixture
def server():
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch, server):
    """An empty cache, pip set to the server alone, and ``toy``: an archive there, then a wheel."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MARTLET_OFFLINE", raising=False)
    monkeypatch.setenv("MARTLET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.address}/simple")
    monkeypatch.setattr(sources, "_PACKAGE_TIMEOUT_S", 30)
    archives = (
        Archive(f"{server.address}/toy.zip", {"toy/log.csv": None}, just_the_log, digest(ZIP)),
        Archive("toylog==1.0", {"toylog/data/log.csv": digest(LOG)}, just_the_log),
    )
    monkeypatch.setitem(sources.SOURCES, "toy", Source(("log.csv",), archives))
    return tmp_path / "cache"


def left(cache):
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))


def test_the_publishers_archive_comes_first_and_once(server, cache):
    server.pages["/toy.zip"] = ZIP
    server.publish_wheel()
    folder = get("toy")
    assert folder == cache / "toy"
    assert (folder / "log.csv").read_bytes() == LOG
    assert get("toy") == folder
    assert server.asked == ["/toy.zip"]
    assert left(cache) == ["toy", "toy/log.csv"]


def test_without_the_archive_pip_finds_the_wheel(server, cache):
    server.publish_wheel()
    assert (get("toy") / "log.csv").read_bytes() == LOG
    assert server.asked == ["/toy.zip", "/simple/toylog/", f"/wheels/{WHEEL_NAME}"]
    assert left(cache) == ["toy", "toy/log.csv"]


def test_another_archive_than_the_published_is_refused(server, cache):
    server.pages["/toy.zip"] = zipped({"toy/log.csv": LOG + b"mallory,x\n"})
    with pytest.raises(SourceUnavailable, match=rf"toy.zip has sha256 \w+, expected {digest(ZIP)}"):
        get("toy")
    assert left(cache) == []


def test_another_file_in_the_wheel_is_refused(server, cache):
    server.publish_wheel(WHEEL.replace(b"toylog/data/log.csv", b"toylog/data/gol.csv"))
    with pytest.raises(SourceUnavailable, match=r"no item named 'toylog/data/log.csv'"):
        get("toy")
    files = {"toylog/data/log.csv": LOG + b"mallory,x\n"}
    with zipfile.ZipFile(io.BytesIO(WHEEL)) as archive:
        files |= {n: archive.read(n) for n in archive.namelist() if "dist-info" in n}
    server.publish_wheel(zipped(files))
    with pytest.raises(SourceUnavailable, match=r"data/log.csv has sha256 \w+, expected"):
        get("toy")
    assert left(cache) == []


@pytest.mark.parametrize("broken", ["header", "stream", "sum"])
def test_a_broken_zip_is_refused(server, cache, monkeypatch, broken):
    """With a published hash that says nothing of it, as of a wheel that is broken."""
    data = bytearray(ZIP)
    begin = 30 + len("toy/log.csv")  # the compressed bytes follow the local header
    at = {"header": data.index(b"PK\5\6"), "stream": begin, "sum": begin + 8}[broken]
    data[at] = 0xFF if broken != "sum" else data[at] ^ 4
    server.pages["/broken.zip"] = bytes(data)
    archive = Archive(f"{server.address}/broken.zip", {"toy/log.csv": None}, just_the_log)
    monkeypatch.setitem(sources.SOURCES, "toy", Source(("log.csv",), (archive,)))
    said = {
        "header": "File is not a zip file",
        "stream": "Error -3 while decompressing data",
        "sum": "Bad CRC-32 for file",
    }
    with pytest.raises(SourceUnavailable, match=rf"broken.zip: {said[broken]}"):
        get("toy")
    assert left(cache) == []


def test_a_connection_cut_in_the_middle_falls_back(server, cache):
    server.pages["/toy.zip"], server.cut = ZIP, {"/toy.zip"}
    server.publish_wheel()
    assert (get("toy") / "log.csv").read_bytes() == LOG
    assert server.asked[0] == "/toy.zip"


def test_every_connection_cut_leaves_nothing(server, cache):
    server.pages["/toy.zip"] = ZIP
    server.publish_wheel()
    server.cut = {"/toy.zip", f"/wheels/{WHEEL_NAME}"}
    with pytest.raises(SourceUnavailable, match=r"IncompleteRead.*; toylog==1.0: \w+"):
        get("toy")
    assert left(cache) == []


def test_offline_with_a_warm_cache(server, cache, monkeypatch):
    server.pages["/toy.zip"] = ZIP
    folder = get("toy")
    monkeypatch.setenv("MARTLET_OFFLINE", "1")
    assert get("toy") == folder
    assert len(server.asked) == 1


def test_offline_with_none(server, cache, monkeypatch):
    server.pages["/toy.zip"] = ZIP
    monkeypatch.setenv("MARTLET_OFFLINE", "1")
    with pytest.raises(SourceUnavailable, match="toy is not cached and MARTLET_OFFLINE=1 forbids"):
        get("toy")
    assert server.asked == []
    assert not cache.exists()


def test_no_network_at_all(server, cache):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(SourceUnavailable, match=r"could not be fetched \(.*refused.*; toylog==1.0"):
        get("toy")
    assert left(cache) == []


def test_the_demo_then_runs_on_a_synthetic_log(cache, monkeypatch):
    from martlet.cli.demo import load

    monkeypatch.setenv("MARTLET_OFFLINE", "1")
    dataset, notes = load()
    assert "SYNTHETIC" in notes[0]
    assert "MARTLET_OFFLINE=1" in notes[0]
    assert len(dataset.train) > 50_000
    assert dataset.catalogue["title"][0].startswith("Synthetic item")


def test_what_is_half_there_is_fetched_again(server, cache):
    server.pages["/toy.zip"] = ZIP
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "log.csv.part").write_bytes(LOG[:3])
    assert (get("toy") / "log.csv").read_bytes() == LOG
    assert left(cache) == ["toy", "toy/log.csv"]


ASK = """
import sys
from martlet.data import sources
from martlet.data.sources import Archive, Source, get
def log(members):
    return {"log.csv": members["toy/log.csv"]}
archive = Archive(sys.argv[1], {"toy/log.csv": None}, log, sys.argv[2])
sources.SOURCES["toy"] = Source(("log.csv",), (archive,))
print((get("toy") / "log.csv").stat().st_size)
"""


def test_of_two_processes_one_fetches_and_both_have_it(server, cache):
    server.pages["/toy.zip"], server.wait_s = ZIP, 0.5
    command = [sys.executable, "-c", ASK, f"{server.address}/toy.zip", digest(ZIP)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in said] == [str(len(LOG))] * 2, said
    assert server.asked == ["/toy.zip"]
    assert left(cache) == ["toy", "toy/log.csv"]


def test_a_cache_that_cannot_be_used(server, cache):
    cache.write_text("a file in the way")
    with pytest.raises(OutputError, match="set MARTLET_CACHE to a folder that you may write to"):
        get("toy")


def test_an_unknown_name():
    with pytest.raises(
        DataError, match="no public log is called 'ml-2': expected one of ml-100k, obd"
    ):
        get("ml-2")


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("MARTLET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert str(cache_folder()) == "/home/ann/.cache/martlet"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_folder()) == "/x/martlet"
    monkeypatch.setenv("MARTLET_CACHE", "/y")
    assert str(cache_folder()) == "/y"


class TestMovieLens:
    def test_the_publishers_files_become_atomic_ones(self, server, cache, monkeypatch):
        files = {
            "ml-100k/u.data": b"196\t242\t3\t881250949\n22\t377\t1\t878887116\n",
            "ml-100k/u.item": "242|Café (1997)|24-Jan-1997||http://x|0|1|1\n"
            "377|Heavyweights (1994)|01-Jan-1994||http://y|1|0|0\n".encode("latin-1"),
            "ml-100k/u.user": b"22|25|M|writer|40206\n196|49|M|writer|55105\n",
            "ml-100k/u.genre": b"unknown|0\nAction|1\nComedy|2\n\n",
        }
        data = zipped(files)
        server.pages["/ml.zip"] = data
        grouplens = sources.SOURCES["ml-100k"].archives[0]
        ours = Archive(
            f"{server.address}/ml.zip", grouplens.members, grouplens.unpack, digest(data)
        )
        names = sources.SOURCES["ml-100k"].files
        monkeypatch.setitem(sources.SOURCES, "ml-100k", Source(names, (ours,)))
        folder = get("ml-100k")
        text = {name: (folder / name).read_text().splitlines() for name in names}
        assert text["ml-100k.inter"] == [
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
            "196\t242\t3\t881250949",
            "22\t377\t1\t878887116",
        ]
        assert text["ml-100k.item"] == [
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
            "242\tCafé (1997)\t1997\tAction Comedy",
            "377\tHeavyweights (1994)\t1994\tunknown",
        ]
        assert text["ml-100k.user"] == [
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
            "22\t25\tM\twriter\t40206",
            "196\t49\tM\twriter\t55105",
        ]

    def test_the_addresses_are_the_publishers(self):
        official, package = sources.SOURCES["ml-100k"].archives
        assert official.where.startswith("https://files.grouplens.org/")
        assert len(official.sha256) == 64
        assert package.where == "recbole==1.2.1"
        assert all(len(found) == 64 for found in package.members.values())


class TestOpenBandit:
    HEADER = (
        b",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0\n"
    )
    ROW = b'0,2019-11-24 00:00:34.762830+00:00,14,3,0,0.0125,"a,b",0.0\n'

    def test_the_affinities_are_left_out(self):
        unpack = sources.SOURCES["obd"].archives[0].unpack
        found = unpack(
            {
                "obp/dataset/obd/random/all/all.csv": self.HEADER + self.ROW,
                "obp/dataset/obd/bts/all/all.csv": self.HEADER,
                "obp/dataset/obd/random/all/item_context.csv": b",item_id,feature\n0,7,-.5\n",
            }
        )
        columns = "timestamp,item_id,position,click,propensity_score,user_feature_0\n"
        row = '2019-11-24 00:00:34.762830+00:00,14,3,0,0.0125,"a,b"\n'
        assert found == {
            "random.csv": (columns + row).encode(),
            "bts.csv": columns.encode(),
            "items.csv": b"item_id,feature\n7,-.5\n",
        }

    def test_it_comes_as_a_wheel_of_checked_files(self):
        (package,) = sources.SOURCES["obd"].archives
        assert package.where == "obp==0.4.1"
        assert all(len(found) == 64 for found in package.members.values())
        assert len(package.members) == len(sources.SOURCES["obd"].files)
