"""Every row of the table, tiny: that it is measured at all. Its figures mean nothing, so nothing is asked of them."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from bench.__main__ import GROUPS, ROWS
from bench.table import BEGIN, END, lines_in

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.interop
@pytest.mark.timeout(
    500
)  # about half a minute of two cores; a machine that runs the whole suite has few to spare
async def test_every_row_gives_a_number_beside_its_baseline(tmp_path: Path) -> None:
    page, samples = tmp_path / "page.md", tmp_path / "samples.json"
    page.write_text(f"{BEGIN}\n{END}\n")
    command = [sys.executable, "-m", "bench", "--smoke", "--json", str(samples), "--write", str(page)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    rows = json.loads(samples.read_text())["rows"]
    assert [row["id"] for row in rows] == [row.id for row in ROWS]
    for row in rows:
        if row["missing"]:
            continue  # a program is not here; where everything is required it fails instead
        assert min(row["samples"]) >= 0, row
        assert len(row["baseline"]["samples"]) > 0, row
    table = [line for line in said.decode().splitlines() if line.startswith("|")]
    assert len(table) == len(ROWS) + 2
    assert {line.count("|") for line in table} == {9}
    assert "\n".join(table) in page.read_text()


def test_every_row_is_one_thing_and_every_group_another() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert len({group.name for group in GROUPS}) == len(GROUPS)


def test_the_page_has_no_row_that_is_not_measured_any_more() -> None:
    assert set(lines_in(ROOT / "docs" / "benchmarks.md")) <= {row.id for row in ROWS}
