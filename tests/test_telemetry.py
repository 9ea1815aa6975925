"""Logs in both forms, at every level; metrics in Prometheus' text format."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from doorward import telemetry


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = telemetry.structlog.get_config()
    yield
    telemetry.structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_library_s_line_can_be_silenced_and_its_others_stay() -> None:
    stream = io.StringIO()
    telemetry.configure(stream=stream)
    logger = logging.getLogger("a.library")
    for _ in range(2):
        telemetry.silence("a.library", "refused %s")
    assert len(logger.filters) == 1
    logger.error("refused %s", "x")
    logger.error("broken")
    assert stream.getvalue() == "ERROR a.library broken\n"


async def test_a_request_joins_the_lines_of_its_task_and_those_it_starts() -> None:
    stream = io.StringIO()
    telemetry.configure(json=True, stream=stream)
    log = telemetry.log("api")

    async def answer(source: str) -> str:
        with telemetry.originating(source) as origin:
            assert telemetry.ORIGIN.get() == origin
            assert origin.source == source
            await asyncio.sleep(0)
            log.info(source)
            await asyncio.create_task(asyncio.to_thread(log.info, source))  # noqa: TID251 - what is inherited is the point
            return origin.request

    numbers = await asyncio.gather(answer("a"), answer("b"))
    log.info("c")
    assert telemetry.ORIGIN.get() is None
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    found = {name: {line.get("request") for line in lines if line["event"] == name} for name in "abc"}
    assert found == {"a": {numbers[0]}, "b": {numbers[1]}, "c": {None}}
    assert len(set(numbers)) == 2


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    telemetry.configure(json=True, stream=stream)
    telemetry.log("relay").warning("a\nb", node="n1", count=3, name='"x"\x1b[31m')
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "a\nb",
        "part": "relay",
        "level": "warning",
        "node": "n1",
        "count": 3,
        "name": '"x"\x1b[31m',
    }


@pytest.mark.parametrize("least", telemetry.LEVELS)
def test_the_level_is_the_least_that_is_written(least: str) -> None:
    stream = io.StringIO()
    telemetry.configure(level=least, json=True, stream=stream)
    for level in telemetry.LEVELS:
        getattr(telemetry.log("test"), level)("said")
    written = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    names = list(telemetry.LEVELS)
    assert written == names[names.index(least) :]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(KeyError):
        telemetry.configure(level="loud")


def test_people_get_a_line_of_text_without_colours_in_a_file() -> None:
    stream = io.StringIO()
    telemetry.configure(stream=stream)
    telemetry.log("server").info("node registered", node="n1", name="a b")
    (line,) = stream.getvalue().splitlines()
    assert line[line.index("[") :] == "[info     ] node registered name='a b' node=n1 part=server"


@pytest.mark.parametrize(
    "hostile", ["a\nb", "x\n2026-01-01T00:00:00Z [error    ] faked", "\x1b[2J", "\x9b2J", "\u202eabc", "a\rb"]
)
def test_what_comes_from_outside_cannot_forge_a_line_or_move_the_cursor(hostile: str) -> None:
    stream = io.StringIO()
    telemetry.configure(stream=stream)
    telemetry.log("server").info("seen", name=hostile)
    telemetry.log("server").info(hostile)
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert text.replace("\n", "").isprintable()
    assert "\\" in text


def test_a_traceback_stays_readable() -> None:
    stream = io.StringIO()
    telemetry.configure(stream=stream)
    try:
        int("boom")
    except ValueError:
        telemetry.log("server").exception("it failed")
    assert "Traceback" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("ValueError: invalid literal for int() with base 10: 'boom'")


def test_loggers_made_before_the_choice_follow_it() -> None:
    early = telemetry.log("early")
    first, second = io.StringIO(), io.StringIO()
    telemetry.configure(json=True, stream=first)
    early.info("one")
    telemetry.configure(json=True, stream=second)
    early.info("two")
    assert '"one"' in first.getvalue()
    assert '"two"' not in first.getvalue()
    assert '"two"' in second.getvalue()


def test_libraries_are_heard_when_they_warn() -> None:
    stream = io.StringIO()
    telemetry.configure(stream=stream)
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("careful")
    assert stream.getvalue() == "WARNING some.library careful\n"


def test_metrics_are_exposed_under_our_name() -> None:
    telemetry.counter("test_things_total", "Things that a test counted", "kind").labels("a").inc(2)
    telemetry.gauge("test_level", "A level").set(1.5)
    telemetry.histogram("test_seconds", "A time").observe(0.2)
    text = telemetry.exposition().decode()
    assert 'doorward_test_things_total{kind="a"} 2.0' in text
    assert "doorward_test_level 1.5" in text
    assert "doorward_test_seconds_count 1.0" in text
    assert "# HELP doorward_test_level A level" in text
    with pytest.raises(ValueError, match="Duplicated"):
        telemetry.gauge("test_level", "Twice")


def test_loading_it_loads_no_drawing_library_and_hides_none() -> None:
    code = (
        "import sys, doorward.telemetry; assert not any(name.split('.')[0] == 'rich' for name in sys.modules);"
        "import rich.console"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_line_that_cannot_be_written_is_lost_and_counted() -> None:
    class Full(io.StringIO):
        """A stream on a disk without room."""

        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    def lost() -> float:
        (line,) = [
            line
            for line in telemetry.exposition().decode().splitlines()
            if line.startswith("doorward_log_lines_lost_total ")
        ]
        return float(line.split()[1])

    before = lost()
    telemetry.configure(stream=Full())
    telemetry.log("store").warning("nobody reads this")
    after = lost()
    assert after > before
    closed = io.StringIO()
    telemetry.configure(stream=closed)
    closed.close()
    telemetry.log("store").warning("nor this")
    assert lost() > after
