"""Tables and bars show the words that they are given."""

import pytest

from martlet.cli.output import print_table, progress

WORDS = ["Alien [Director's cut]", "[bold]M[/bold]", "[/]", "Speed :heart: [1994]", "a\\[b]", "[["]


@pytest.mark.parametrize("words", WORDS)
def test_a_table_shows_what_its_cells_hold(capsys, words):
    print_table(f"For {words}", ["item", words], [["i1", words], [words, 0.5]])
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == f"For {words}"
    assert [line.count(words) for line in lines if words in line] == [1, 1, 1]


def test_a_bar_shows_what_its_step_is_called(capsys):
    with progress() as note:
        note("prepare: [bold]log[/] :heart:", 1, 2)
    assert "prepare: [bold]log[/] :heart:" in capsys.readouterr().err


def test_numbers_stand_on_the_right(capsys):
    print_table("", ["n", "name"], [[1, "a"], [1234567, "b"]])
    assert "         1 " in capsys.readouterr().out
