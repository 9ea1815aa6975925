"""Logs and metrics: the only place that knows those libraries.

``log(name)`` gives a logger whose calls name an event and its fields: ``log.info("node registered", node=stable_id)``.
Nothing secret is ever a field. ``configure`` chooses the form once at start: a console for people, JSON for machines. A line
that cannot be written, because the disk is full or whoever read has gone, is lost and counted: saying must not end doing.
Pure packages log nothing; they return counts.
"""

import contextlib
import logging
import secrets
import sys
from collections.abc import Iterator, MutableMapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NamedTuple, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest


def _load_structlog() -> ModuleType:
    """The log library without rich, with which it would draw tracebacks: they are printed plainly, and rich takes 0.1 s."""
    loaded = sys.modules.get("rich")
    if loaded is None:
        sys.modules["rich"] = None  # type: ignore[assignment]  # for the import system this means: not there
    try:
        import structlog  # noqa: PLC0415 - see above
    finally:
        if loaded is None:
            del sys.modules["rich"]
    return structlog


structlog: Any = _load_structlog()

REGISTRY = CollectorRegistry()
_lost_lines = Counter(
    "doorward_log_lines_lost", "Lines of the log that could not be written.", registry=REGISTRY
)


class Origin(NamedTuple):
    """Whose request something is done for: what joins an answer, the lines of the log and the audit events of it."""

    source: str  # the address it came from, or the name of the socket
    request: str  # its number: random, and new for each


# Of the task that runs, and on the store's writer thread of the unit that runs. None for what doorward does by itself.
ORIGIN: ContextVar[Origin | None] = ContextVar("origin", default=None)


@contextlib.contextmanager
def originating(source: str) -> Iterator[Origin]:
    """Say for this task, and those that it starts, whose request it works on. Every line that it logs has the number."""
    origin = Origin(source, secrets.token_hex(6))
    token = ORIGIN.set(origin)
    bound = structlog.contextvars.bind_contextvars(request=origin.request)
    try:
        yield origin
    finally:
        structlog.contextvars.reset_contextvars(**bound)
        ORIGIN.reset(token)


LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Careful:
    """A stream that loses what it cannot write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it is closed
            _lost_lines.inc()
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(*, level: str = "info", json: bool = False, stream: TextIO | None = None) -> None:
    """Set the form of the log for this process: ``level`` is a key of LEVELS, ``stream`` defaults to stderr."""
    stream = stream or sys.stderr
    last: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *(() if json else (_printable,)),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(_Careful(stream)),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=stream, force=True, format="%(levelname)s %(name)s %(message)s"
    )


def _printable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Names and sentences come from outside: what a terminal would obey (or a reader not see) is shown as an escape."""
    return {
        name: ascii(value)[1:-1]
        if isinstance(value, str) and name != "exception" and not value.isprintable()
        else value
        for name, value in event.items()
    }


class _Without(NamedTuple):
    """A filter of a library's logger. A value, so that the same one added again is one."""

    message: str

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != self.message


def silence(library: str, message: str) -> None:
    """Have a library's logger never say this line, as it stands in its code: one that strangers could fill the log with."""
    logging.getLogger(library).addFilter(_Without(message))


def log(name: str) -> Any:
    """A logger for one part of the program, named in every line it writes."""
    return structlog.get_logger(part=name)


def counter(name: str, help_text: str, *labels: str) -> Counter:
    """A number that only grows. Made once, at import, by the module that counts."""
    return Counter(f"doorward_{name}", help_text, labels, registry=REGISTRY)


def gauge(name: str, help_text: str, *labels: str) -> Gauge:
    """A number that goes up and down."""
    return Gauge(f"doorward_{name}", help_text, labels, registry=REGISTRY)


def histogram(name: str, help_text: str, *labels: str) -> Histogram:
    """A distribution, in seconds unless the name says otherwise."""
    return Histogram(f"doorward_{name}", help_text, labels, registry=REGISTRY)


def exposition() -> bytes:
    """Every metric in Prometheus' text format."""
    return generate_latest(REGISTRY)
