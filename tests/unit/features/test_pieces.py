import re

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from martlet.core import Text
from martlet.features.pieces import split, words

some = st.lists(st.text("ab|; Z9é雨。“—，", max_size=12), max_size=6)


def of(pieces):
    found = [
        pieces.blob[start : start + length].tobytes().decode()
        for start, length in zip(pieces.start, pieces.length, strict=True)
    ]
    return [found[a:b] for a, b in zip(pieces.indptr[:-1], pieces.indptr[1:], strict=True)]


@settings(deadline=None)
@given(some)
@example(["|", " | ", "a", "||a", "a |  b|", ""])
def test_split_is_that_of_python(strings):
    expected = [[p.strip(" ") for p in string.split("|") if p.strip(" ")] for string in strings]
    assert of(split(Text.of(strings), "|")) == expected


@settings(deadline=None)
@given(some)
@example(["雨燕wren", "don't—stop", "", "Z", "；：０１"])
def test_words_are_runs_of_letters(strings):
    pattern = re.compile(r"[぀-퟿]|[0-9a-zé０-９]+")
    expected = [pattern.findall(string.replace("Z", "z")) for string in strings]
    assert of(words(Text.of(strings))) == expected


def test_a_part_of_a_longer_column():
    text = Text.of(["a|b", "c |d", "e"])
    part = Text(text.blob, text.offsets[1:3])
    assert of(split(part, "|")) == [["c", "d"]]
    assert of(words(part)) == [["c", "d"]]


def test_text_cut_within_a_letter_is_no_crash():
    blob = np.frombuffer("雨".encode()[:2], np.uint8)
    assert words(Text(blob, np.array([0, 2]))).indptr.tolist() == [0, 1]


def test_keep():
    pieces = split(Text.of(["a|b|c", "d"]), "|").keep(np.array([True, False, True, False]))
    assert of(pieces) == [["a", "c"], []]
