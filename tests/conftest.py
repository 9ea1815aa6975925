"""What every test finds and leaves."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from doorward.clock import SystemClock

# How long one example of a property takes on a busy machine says nothing about the property; each test as a whole has its limit.
# All else is as it was: Hypothesis has a profile of its own where it finds itself in CI.
settings.register_profile("busy", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("busy")

# What these tests start ends as shells do when their terminal goes, also where they were themselves started by nohup.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

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
