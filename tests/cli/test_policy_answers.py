"""What the policy means, asked on the command line."""

import csv
import io

from tests.cli.conftest import Play

from doorward.cli import policy_answers


async def test_the_script_of_policy_answers(play_script: Play) -> None:
    assert await play_script("policy_answers") > 10


def test_no_cell_of_a_review_is_a_formula_or_a_command() -> None:
    for text in ("=1+1", "+1", "-1", "@x"):
        assert policy_answers._cell(text) == "'" + text
    assert policy_answers._cell("a\x1b[2J") == "a\\x1b[2J"
    page = io.StringIO()
    csv.writer(page).writerow([policy_answers._cell('tcp 22,"x"')])
    assert next(csv.reader([page.getvalue()])) == ['tcp 22,"x"']
