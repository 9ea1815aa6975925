import json
from pathlib import Path

import pytest
from bench.table import (
    BEGIN,
    END,
    Better,
    Figures,
    Row,
    as_json,
    cells,
    lines_in,
    markdown,
    number,
    write_into,
)

FAST = Row(id="fast", what="a thing", unit="us", baseline="another", must=100, aim=25)
MANY = Row(id="many", what="things", unit="/s", baseline="others", must=100, aim=400, better=Better.MORE)
PART = Row(id="part", what="share", unit="us", baseline="another", must=1.2, aim=0.75, by_ratio=True)


def test_a_row_shows_medians_range_ratio_and_whether_its_targets_are_met() -> None:
    assert cells(FAST, Figures([30, 10, 80], [60, 15], "as seen")) == [
        "`fast`",
        "a thing",
        "30.0 us (10.0 to 80.0; n = 3)",
        "another: 37.5 us",
        "0.80",
        "at most 100 us: met",
        "at most 25 us: **not met**",
        "as seen",
    ]


def test_more_may_be_better() -> None:
    shown = cells(MANY, Figures([250], [500]))
    assert shown[2:] == [
        "250/s",
        "others: 500/s",
        "0.50",
        "at least 100/s: met",
        "at least 400/s: **not met**",
        "",
    ]


@pytest.mark.parametrize(
    ("ours", "must", "aim"),
    [(0.7, "met", "met"), (1.1, "met", "**not met**"), (2, "**not met**", "**not met**")],
)
def test_a_target_may_be_of_the_ratio(ours: float, must: str, aim: str) -> None:
    shown = cells(PART, Figures([ours * 40], [40]))
    assert shown[5:7] == [f"ratio at most 1.2: {must}", f"ratio at most 0.75: {aim}"]


def test_what_could_not_be_measured_says_why_and_claims_nothing() -> None:
    shown = cells(FAST, Figures(missing="no such program"))
    assert shown[2] == "not measured: no such program"
    assert shown[5:7] == ["at most 100 us", "at most 25 us"]


def test_the_table_has_one_width_and_only_rows_that_were_asked_for() -> None:
    lines = markdown(
        [FAST, MANY, PART], {"fast": Figures([1]), "part": Figures([1], [1])}, ["a machine"]
    ).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert lines[0] == "a machine"
    assert len(table) == 4
    assert {line.count("|") for line in table} == {9}


def test_a_busy_machine_is_said() -> None:
    assert cells(FAST, Figures([1], note="as seen", load=1.4))[-1] == "as seen"
    assert cells(FAST, Figures([1], note="as seen", load=6.2))[-1] == "as seen; measured at a load of 6"
    assert cells(FAST, Figures([1], load=6.2))[-1] == "measured at a load of 6"


def test_rows_that_were_not_measured_now_stay_as_they_are(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"| `fast` | no table |\n{BEGIN}\n{END}\n")
    assert lines_in(page) == {}
    write_into(page, markdown([FAST, MANY], {"fast": Figures([1]), "many": Figures([2])}, ["a machine"]))
    before = lines_in(page)
    assert list(before) == ["fast", "many"]
    write_into(page, markdown([FAST, MANY, PART], {"many": Figures([3])}, ["a machine"], before))
    after = lines_in(page)
    assert after["fast"] == before["fast"]
    assert "| 3.00/s |" in after["many"]
    assert list(after) == ["fast", "many"]


def test_programs_get_every_sample_and_the_command() -> None:
    (row,) = json.loads(as_json([FAST, MANY], {"fast": Figures([3, 1, 2], [4])}, []))["rows"]
    assert row["samples"] == [3, 1, 2]
    assert row["median"] == 2
    assert row["ratio"] == 0.5
    assert row["command"] == "python -m bench --only fast"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0.00"),
        (0.00042, "0.00042"),
        (0.031, "0.031"),
        (0.25, "0.25"),
        (3.14159, "3.14"),
        (47.31, "47.3"),
        (47_312.5, "47,312"),
    ],
)
def test_figures_have_about_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_page_keeps_its_prose(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold \\1\n{END}\nafter\n")
    for table in ("| new \\1 |\n", "| newer |\n"):
        write_into(page, table)
        assert page.read_text() == f"before\n{BEGIN}\n{table}{END}\nafter\n"


@pytest.mark.parametrize("text", ["no marks\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_page_without_exactly_one_place_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="exactly one part"):
        write_into(page, "| new |\n")
    assert page.read_text() == text
