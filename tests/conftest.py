"""What every test finds and leaves."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What a test tells the log counts for that test: whoever listens later hears what they would hear alone."""
    before, known = structlog.get_config(), structlog.is_configured()
    yield
    if known:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()
