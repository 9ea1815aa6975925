"""What to do when a program that a test needs is not there."""

import os
from typing import NoReturn

import pytest

# What ``missing`` raises where it does not fail, for those who want to say the reason themselves.
Missing = pytest.skip.Exception


def missing(what: str) -> NoReturn:
    """Skip the test and say why; fail it where DOORWARD_REQUIRE=all says that nothing may be missing."""
    if os.environ.get("DOORWARD_REQUIRE") == "all":
        pytest.fail(f"needed, since DOORWARD_REQUIRE=all: {what}")
    pytest.skip(what)
