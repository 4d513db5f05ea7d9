import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import polars as pl
import pytest

from martlet.core import DataError
from martlet.data import RandomSplit, prepare, read
from martlet.data.reading import read_table

ALL_TRAIN = RandomSplit(0.0001, 0.0001)
HEADER = "user,item\n"


def rows(path, **options):
    """Return the good rows of a log as text, in order, and what was wrong with the others."""
    log = read(path if isinstance(path, list) else str(path), **options)
    aside = path[0].parent if isinstance(path, list) else path.parent
    dataset = prepare(log, split=ALL_TRAIN, clean=(), rejects=aside / "rejects")
    train = dataset.train
    pairs = zip(
        dataset.users.names(train.user_row), dataset.items.names(train.item_row), strict=True
    )
    counts = {one["rule"]: one["rows_in"] - one["rows_out"] for one in dataset.about["cleaning"]}
    return sorted(pairs), {rule: count for rule, count in counts.items() if count}


@pytest.fixture
def made(tmp_path):
    def make(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


class TestAddresses:
    @pytest.fixture
    def address(self):
        """Serve bytes, as object stores do: in the ranges that are asked for."""
        served = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self, body=True):
                data = served[self.path]
                asked = self.headers.get("Range")
                first, last = 0, len(data) - 1
                if asked:
                    low, high = asked.removeprefix("bytes=").split("-")
                    first, last = int(low), min(int(high), last) if high else last
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(last - first + 1))
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if body:
                    self.wfile.write(data[first : last + 1])

            def do_HEAD(self):
                self.do_GET(body=False)

            def log_message(self, *words):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def serve(name, data):
            served[f"/{name}"] = data
            return f"http://127.0.0.1:{server.server_port}/{name}"

        yield serve
        server.shutdown()
        thread.join()
        server.server_close()

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("l.csv", "user,item\na,x\nb,y\n"),
            ("l.tsv", "user\titem\na\tx\nb\ty\n"),
            ("l.inter", "user_id:token\titem_id:token\na\tx\nb\ty\n"),
            ("l.dat", "a::x::1::5\nb::y::2::6\n"),
            ("l.txt", "a x\nb y y\n"),
            ("l.jsonl", '{"user":"a","item":"x"}\n{"user":"b","item":"y"}\n'),
            ("l.json", '[{"user":"a","item":"x"},\n{"user":"b","item":"y"}]'),
        ],
    )
    def test_text_is_read_from_there(self, made, address, name, text):
        for source in (made(name, text).as_uri(), address(name, text.encode())):
            dataset = prepare(source, split=ALL_TRAIN)
            assert set(dataset.users.ids) == {"a", "b"}
            assert set(dataset.items.ids) == {"x", "y"}

    def test_a_format_that_is_given(self, made):
        path = made("a log.csv", "user,item\na,x\n")
        assert read(path.as_uri(), format="csv", sep=",").files == (str(path),)

    def test_what_is_wrong_there_is_stated(self, address):
        with pytest.raises(DataError, match=r"e\.csv is empty"):
            read(address("e.csv", b" \n\n"))
        with pytest.raises(DataError, match=r"127\.0\.0\.1:1/l\.csv cannot be read"):
            read("http://127.0.0.1:1/l.csv")


class TestSurplus:
    def test_a_row_with_too_many_fields_is_bad(self, made):
        path = made("l.csv", "user,item\na,x\nalice,apple,red\nb,y\nc,z,1,2\n")
        assert rows(path) == ([("a", "x"), ("b", "y")], {"too many fields": 2})
        aside = pl.read_parquet(path.parent / "rejects")
        assert aside["(surplus)"].to_list() == ["red", "1"]
        assert aside["row"].to_list() == ["2", "4"]
        with pytest.raises(DataError, match=r"row 2: too many fields in .*\(surplus\)='red'"):
            prepare(str(path), split=ALL_TRAIN, strict=True)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("l.tsv", "user\titem\na\tx\nb\ty\tz\n"),
            ("l.inter", "user_id:token\titem_id:token\na\tx\nb\ty\tz\n"),
            ("l.dat", "a::x::1::5\nb::y::2::6::7\n"),
            ("l.csv", "a,x,1,5\nb,y,2,6,junk,more\n"),
        ],
    )
    def test_so_it_is_in_each_separated_format(self, made, name, text):
        assert rows(made(name, text)) == ([("a", "x")], {"too many fields": 1})

    @pytest.mark.parametrize("heading", ["user,item\n", "user,item,\n", ""])
    def test_a_separator_at_the_end_of_each_line_is_none(self, made, heading):
        path, header = made("l.csv", f"{heading}a,x,\nb,y, \n"), heading != ""
        assert rows(path, header=header) == ([("a", "x"), ("b", "y")], {})

    def test_a_side_table_counts_them(self, made):
        path = made("i.csv", "item,title\nx,Good\ny,Hello, World\nz,\n")
        table, num_bad = read_table(str(path))
        assert (table["id"].to_list(), num_bad) == (["x", "z"], 1)
        joined = prepare({"user": ["a"], "item": ["x"]}, items=str(path), split=ALL_TRAIN)
        assert joined.about["items joined"]["bad rows"] == 1


GOOD = "".join(f"u{n},i{n}\n" for n in range(500))
GOOD_PAIRS = sorted((f"u{n}", f"i{n}") for n in range(500))


class TestQuotes:
    @pytest.mark.parametrize("at", [0, 100, 500])
    @pytest.mark.parametrize("line", ['"x', '"x" y', '"'])
    def test_one_that_does_not_close_breaks_its_line_alone(self, made, at, line):
        lines = GOOD.splitlines(keepends=True)
        path = made("q.csv", HEADER + "".join([*lines[:at], f"a,{line}\n", *lines[at:]]))
        assert rows(path) == (GOOD_PAIRS, {"broken line": 1})
        aside = pl.read_parquet(path.parent / "rejects")
        assert aside["(broken)"].to_list() == [f"a,{line}"]
        assert aside["row"].to_list() == [str(at + 1)]

    def test_within_a_field_it_is_a_letter(self, made):
        path = made("q.csv", HEADER + GOOD + 'a,5" nail\nb,"a ""b"", c"\n')
        pairs = sorted([*GOOD_PAIRS, ("a", '5" nail'), ("b", 'a "b", c')])
        assert rows(path) == (pairs, {})

    def test_what_was_read_before_stays_as_it_was(self, made, monkeypatch):
        monkeypatch.setattr("martlet.data.parse._BATCH", 100)
        head = 'a,"new\nline"\nb,"two\n\nmore"\n\nc,"d,""e"""\n'
        many = "".join(f'"v{n}","two\nlines {n}"\n' for n in range(40_000))
        path = made("q.csv", f'{HEADER}{head}{many}z,"w\n{GOOD}y,b,surplus\n')
        pairs, bad = rows(path)
        assert {("a", "new\nline"), ("b", "two\n\nmore"), ("c", 'd,"e"')} < set(pairs)
        assert set(GOOD_PAIRS) < set(pairs)
        assert bad["too many fields"] == 1
        assert bad["missing id"] >= 1
        # Behind it a field may have no line's end; before it, most rows were read at once.
        assert len({(f"v{n}", f"two\nlines {n}") for n in range(40_000)} & set(pairs)) > 0

    def test_a_table_by_tabs_has_them_where_whole_fields_stand_in_them(self, made):
        plain = made("p.tsv", 'user\titem\na\t5" nail\nb\t"x\nc\ty\n')
        assert rows(plain) == ([("a", '5" nail'), ("b", '"x'), ("c", "y")], {})
        quoted = made("q.tsv", 'user\titem\n"a"\t"x\ty"\nb\t"x\n')
        assert rows(quoted) == ([("a", "x\ty")], {"broken line": 1})

    def test_headings_may_stand_in_them(self, made):
        path = made("q.csv", '"user","item","a ""b"", c"\r\n"a","x",1\r\n')
        assert read(str(path), context_cols=['a "b", c']).context == ('a "b", c',)
        assert rows(path) == ([("a", "x")], {})

    def test_a_side_table_goes_on_too(self, made):
        path = made("i.csv", 'item,title\nw,"a\nb"\nx,"open\ny,"shut"\n')
        table, num_bad = read_table(str(path))
        assert (table["id"].to_list()[-1], table["title"].to_list()[-1]) == ("y", "shut")
        assert num_bad >= 1


def jsonl(*objects):
    return "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in objects)


class TestJson:
    def test_a_line_that_is_no_object_is_counted(self, made):
        good = [{"user": f"u{n}", "item": f"i{n}"} for n in range(500)]
        bad = ['{"user":', "[1, 2]", "5", '{"user": "a", "item": "x"} junk']
        path = made("l.jsonl", jsonl(*good[:300], *bad, "", *good[300:]))
        assert rows(path) == (GOOD_PAIRS, {"broken line": 4})
        assert pl.read_parquet(path.parent / "rejects")["(broken)"].to_list() == bad

    def test_ids_may_be_of_any_type_and_size(self, made):
        given = [7, "007", 2**63, 2**80, -1, "abc", 12345678901234567, 1.5, 'e\u0301 "q" \\']
        path = made("l.jsonl", jsonl(*({"user": 1, "item": n} for n in [1] * 2000 + given)))
        pairs, bad = rows(path)
        assert {item for _, item in pairs} == {str(n) for n in [1, *given]}
        assert not bad

    def test_a_broken_line_changes_no_other(self, made):
        given = [{"user": 1.0, "item": 1e3}, {"user": {"a": 1}, "item": [1, 2]}] * 5
        whole, _ = rows(made("l.jsonl", jsonl(*given)))
        assert rows(made("m.jsonl", jsonl(*given[:3], "{", *given[3:]))) == (
            whole, {"broken line": 1},
        )  # fmt: skip

    def test_bytes_that_are_no_utf8_spoil_their_row_alone(self, made):
        data = jsonl({"user": "a", "item": "x"}, {"user": "bé", "item": "y"}).encode()
        extra = '{"user": "é", "item": "z"}\n'.encode("latin-1")
        pairs, bad = rows(made("l.jsonl", data + extra))
        assert (pairs, bad) == ([("a", "x"), ("bé", "y")], {"id that is not UTF-8": 1})

    def test_a_column_may_begin_far_down(self, made):
        plain = [{"user": f"u{n}", "item": f"i{n}", "rating": 1} for n in range(3000)]
        late = [{"user": "a", "item": "x", "rating": 1, "what": "buy", "n": 2}]
        path = str(made("l.jsonl", jsonl(*plain, *late)))
        log = read(path, event_col="what", context_cols=["n"])
        assert log.columns["event"] == "what"
        dataset = prepare(log, split=ALL_TRAIN, clean=())
        assert dataset.train.weight.tolist() == [5]
        with pytest.raises(DataError, match="has no column 'when': it has user, item, rating"):
            read(path, time_col="when")

    def test_columns_carried_along_stay_numbers(self, made):
        given = [{"user": 1, "item": n, "price": n / 2, "new": n > 1} for n in range(4)]
        log = read(str(made("l.jsonl", jsonl(*given))), context_cols=["price", "new"])
        extra = prepare(log, split=ALL_TRAIN, clean=()).train.extra
        assert sorted(extra["price"].tolist()) == [0, 0.5, 1, 1.5]
        assert set(extra["new"].tolist()) == {0, 1}

    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_an_array_of_objects(self, made, indent, pack):
        given = [{"user": 2**80, "item": "x"}, {"user": "007", "item": 1.5}, 5]
        data = b"\xef\xbb\xbf" + json.dumps(given, indent=indent).encode()
        path = made("l.json" if pack is bytes else "l.json.gz", pack(data))
        assert rows(path) == ([("007", "1.5"), (str(2**80), "x")], {"broken line": 1})

    def test_an_array_that_is_one_long_line(self, made):
        given = [{"user": "u" * 1000, "item": n} for n in range(9000)]
        path = made("l.json", json.dumps(given))
        assert read(str(path)).frame.collect()["item_id"].to_list() == [str(n) for n in range(9000)]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[{"user": 1, "item": 2}', "cannot be read: Expecting ',' delimiter"),
            ("5\n6\n", "has no JSON object in its first lines"),
            ("[]", "has no JSON object in its first lines"),
        ],
    )
    def test_what_holds_no_object(self, made, text, message):
        with pytest.raises(DataError, match=message):
            read(str(made("l.json", text)))


class TestFolders:
    def test_a_folder_of_recbole_is_its_log(self, made):
        made("f/x.item", "item_id:token\ttitle:token\nx\tX\n")
        made("f/x.user", "user_id:token\tage:float\na\t5\n")
        path = made("f/x.inter", "user_id:token\titem_id:token\na\tx\n")
        log = read(str(path.parent))
        assert (log.files, log.format) == ((str(path),), "atomic")

    def test_a_folder_of_partitions(self, made, tmp_path):
        made("f/y=1/a.csv", "user,item\na,x\n")
        made("f/y=2/deep/b.csv", "user,item\nb,y\n")
        made("f/.hidden/c.csv", "user,item\nc,z\n")
        made("f/.d.csv", "user,item\nd,z\n")
        made("f/_SUCCESS", "")
        for source in ("f", "f/y=*"):
            dataset = prepare(str(tmp_path / source), split=ALL_TRAIN)
            assert set(dataset.users.ids) == {"a", "b"}

    def test_files_of_several_formats(self, made, tmp_path):
        made("f/a.csv", "user,item\na,x\n")
        made("f/b.jsonl", '{"user": 1, "item": 2}\n')
        with pytest.raises(DataError, match=r"a\.csv is csv and .*b\.jsonl is jsonl: expected"):
            read(str(tmp_path / "f"))
        assert len(read(str(tmp_path / "f" / "*.csv")).files) == 1

    def test_columns_are_found_by_name_in_each_file(self, made):
        files = [
            made("a.csv", "user,item\na,x\n"),
            made("b.csv", "\n item , user \ny,b\nz,c,surplus\n"),
            made("c.csv", "user,item\nd,w\n"),
            made("d.csv", '"item","user"\nv,e\n"open,f\n'),
        ]
        assert rows(files) == (
            [("a", "x"), ("b", "y"), ("d", "w"), ("e", "v")],
            {"too many fields": 1, "broken line": 1},
        )

    @pytest.mark.parametrize("text", ["user,other\na,x\n", "user,item,more\na,x,1\n", "b,y\n"])
    def test_files_with_other_columns(self, made, text):
        files = [made("a.csv", "user,item\na,x\n"), made("b.csv", text)]
        with pytest.raises(DataError, match=r"b\.csv has the columns .* where .*a\.csv has user"):
            read([str(file) for file in files])


class TestHeadings:
    @pytest.mark.parametrize(
        ("text", "columns"),
        [
            ("alice,apple,2020-09-13\nbob,pear,2020-09-14\n", ("user", "item", "time")),
            ("alice,apple,1600000000\nbob,pear,1600000001\n", ("user", "item", "time")),
            ("alice,apple,4\nbob,pear,5\n", ("user", "item", "rating")),
            ("alice,apple,4,2020-09-13 12:26:40\n", ("user", "item", "rating", "time")),
            ("alice,apple,4.5e0,2020-09-13T12:26\n", ("user", "item", "rating", "time")),
        ],
    )
    def test_a_line_with_a_number_or_a_date_is_none(self, made, text, columns):
        path = made("l.csv", text)
        assert tuple(read(str(path)).columns) == columns
        assert ("alice", "apple") in rows(path)[0]

    def test_it_is_said_where_it_cannot_be_told(self, made):
        path = made("l.csv", "alice,apple\nbob,pear\n")
        with pytest.raises(DataError, match="or say --no-header where the first line is an event"):
            read(str(path))
        assert rows(path, header=False) == ([("alice", "apple"), ("bob", "pear")], {})
        numbers = made("n.csv", "1,2\nalice,apple\n")
        assert rows(numbers, header=True, user_col="1", item_col="2")[0] == [("alice", "apple")]
        stars = made("l.dat", "user::item\nalice::apple\n")
        assert rows(stars) == ([("alice", "apple")], {})

    def test_the_width_is_that_of_most_first_lines(self, made):
        path = made("l.csv", "a,x,1,5,oops\n" + "".join(f"b,y,1,{n}\n" for n in range(9)))
        assert rows(path) == ([("b", "y")] * 9, {"too many fields": 1})

    def test_blank_lines_and_a_mark_before_it(self, made):
        for text in ("\ufeff\n \r\nuser,item\r\na,x\r\n", "\n" * 99 + "user,item\na,x"):
            assert rows(made("l.csv", text)) == ([("a", "x")], {})

    def test_a_name_with_signs_of_a_glob(self, made):
        assert rows(made("l[1]*.csv", "user,item\na,x\n")) == ([("a", "x")], {})
