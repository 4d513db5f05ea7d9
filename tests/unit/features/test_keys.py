import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from martlet.core import Text
from martlet.features.keys import (
    bucket_rows,
    cross_keys,
    gather,
    number_keys,
    span_keys,
    text_keys,
)

MASK = 2**64 - 1
GOLDEN, LENGTH = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=12)


def scrambled(key):
    key ^= key >> 30
    key = key * 0xBF58476D1CE4E5B9 & MASK
    key ^= key >> 27
    key = key * 0x94D049BB133111EB & MASK
    return key ^ key >> 31


def reference(string):
    data = string.encode()
    if not data:
        return 0
    total = len(data) * LENGTH
    for place in range(0, len(data), 8):
        word = int.from_bytes(data[place : place + 8], "little")
        total += scrambled(word + (place // 8 + 1) * GOLDEN & MASK)
    return max(scrambled(total & MASK), 1)


@settings(deadline=None)
@given(texts)
@example(["", "a" * 7, "a" * 8, "a" * 9, "\0", "\0\0", "雨燕"])
def test_a_key_is_that_of_the_reference(strings):
    assert text_keys(Text.of(strings)).tolist() == [reference(string) for string in strings]


@settings(deadline=None)
@given(texts, st.randoms(use_true_random=False))
def test_a_key_depends_on_nothing_around(strings, random):
    order = list(range(len(strings)))
    random.shuffle(order)
    text = Text.of(strings)
    start, length = text.offsets[:-1][order], np.diff(text.offsets)[order]
    shuffled = span_keys(text.blob, start, length).tolist()
    assert shuffled == [reference(strings[row]) for row in order]
    assert list(gather(text.blob, start, length)) == [strings[row] for row in order]


def test_many_texts_have_as_many_keys():
    strings = [f"{n}" for n in range(100_000)] + [f"{n} " for n in range(100_000)]
    keys = text_keys(Text.of(strings))
    assert len(np.unique(keys)) == len(strings)
    # Each of 64 bits is set for half of them, within 5 deviations.
    bits = np.unpackbits(keys.view(np.uint8)).reshape(len(keys), 64).mean(0)
    assert abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(len(keys))


def test_keys_stay_what_they_are():
    """The tables of stored bundles rest on them."""
    text, numbers = text_keys(Text.of(["wren", "a long-tailed tit"])), np.array([94, 0.5])
    assert text.tolist() == [7275063052343958735, 6351531048193668381]
    assert number_keys(numbers).tolist() == [17714652617231823143, 9890842216134213398]
    assert cross_keys([number_keys(numbers), text])[0] == 6175623407693486617


@settings(deadline=None)
@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_a_whole_number_has_one_key(numbers):
    whole = number_keys(np.array(numbers, np.int64))
    assert whole.tolist() == number_keys(np.array(numbers, np.float64)).tolist()
    assert len(set(whole.tolist())) == len(set(numbers))
    assert (whole != 0).all()


def test_numbers_of_any_type():
    keys = number_keys(np.array([0.5, 0.25, np.nan, -0.0, 0.0, np.inf, -np.inf, 1e300]))
    assert keys[2] == 0
    assert keys[3] == keys[4] == number_keys(np.array([0], np.uint8))[0]
    assert len(set(keys.tolist())) == 7
    assert number_keys(np.array([True])) == number_keys(np.array([1], np.float32))


def test_a_cross_has_an_order_and_no_missing_part():
    first, second = number_keys(np.array([1.0, 2, 1, np.nan])), number_keys(np.array([2, 1, 1, 5]))
    keys = cross_keys([first, second])
    assert keys[3] == 0
    assert len(set(keys.tolist())) == 4
    assert cross_keys([second, first])[0] == keys[1]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("buckets", [1, 7, 1000])
def test_buckets(buckets):
    rows = bucket_rows(number_keys(np.arange(10_000)), buckets)
    assert rows.dtype == np.int32
    assert set(rows.tolist()) == set(range(1, buckets + 1))
    # As many in each as an even deal gives, within 6 deviations.
    counts = np.bincount(rows)[1:]
    assert abs(counts - 10_000 / buckets).max() <= 6 * np.sqrt(10_000 / buckets)
    assert bucket_rows(np.zeros(2, np.uint64), buckets).tolist() == [0, 0]
