"""What every test finds and leaves."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from doorward.clock import SystemClock

_LOCK = Path("~/.pyenv/shims/.pyenv-shim").expanduser()


@pytest.fixture(autouse=True)
def _login_shells_wait_for_nobody() -> None:
    """Where pyenv is part of them: a shell that a test killed leaves a lock, and each later one would wait a minute for it."""
    with contextlib.suppress(OSError):
        if SystemClock().now().timestamp() - _LOCK.stat().st_mtime > 1:
            _LOCK.unlink()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What a test tells the log counts for that test: whoever listens later hears what they would hear alone."""
    before, known = structlog.get_config(), structlog.is_configured()
    yield
    if known:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()
