import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from martlet.data.side import join_table

DATA = Path(os.environ.get("MARTLET_DATA", "../shared/data"))


def join(table, names=("x", "y", "z"), kind="item"):
    return join_table(pl.Series(list(names)), table, kind)[0]


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "None", "nan", "-", "", " "])
def test_a_word_for_none_among_numbers_is_a_missing_number(word):
    price = join({"item": ["x", "y", "z"], "price": ["1.5", word, " 2 "]})["price"]
    np.testing.assert_array_equal(price, [1.5, np.nan, 2])


@pytest.mark.parametrize("values", [["1", "N/A", "cheap"], ["01", "02", "-"], ["NA", "-", ""]])
def test_what_is_no_number_stays_text(values):
    assert list(join({"item": ["x", "y", "z"], "code": values})["code"]) == values


def test_the_second_column_without_a_heading_is_an_items_title(tmp_path):
    path = tmp_path / "table.dat"
    path.write_text("1::F::56\n2::M::25\n")
    items = join(str(path), ["2"])
    assert (list(items["title"]), items["column_3"].tolist()) == (["M"], [25])
    users = join(str(path), ["2"], "user")
    assert (list(users["column_2"]), "title" in users) == (["M"], False)
    assert "name" in join({"user": ["x"], "name": ["Ann"]}, ["x"], "user")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("i.dat", "1::Les Misérables::5\n2::Ü::6\n"),
        ("i.csv", "item,title,größe\n1,Les Misérables,5\n2,Ü,6\n"),
        ("i.jsonl", '{"item":1,"title":"Les Misérables"}\n{"item":2,"title":"Ü"}\n'),
        ("i.item", "item_id:token\ttitle:token_seq\n1\tLes Misérables\n2\tÜ\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_titles_are_read_in_latin_1_where_they_are_no_utf8(tmp_path, name, text, encoding):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    columns = join(str(path), ["1", "2"])
    assert list(columns["title"]) == ["Les Misérables", "Ü"]
    assert name != "i.csv" or columns["größe"].tolist() == [5, 6]


def test_the_titles_of_movielens_come_out_right():
    path = DATA / "ml-1m" / "movies.dat"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    titles = join(str(path), ["73", "1"])["title"]
    assert list(titles) == ["Misérables, Les (1995)", "Toy Story (1995)"]
