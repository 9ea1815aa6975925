"""What finds inputs: mutation led by coverage, and bounds of time and memory on every single input.

An input is kept, and mutated further, when it takes a step between two lines of the product that none took before. Now and
then a kept input is blown up to the largest size that the target's parsers let in: what needs more than linear time or memory
is found there. An input fails by raising, by using too much processor time, or by too much memory.
"""

import hashlib
import importlib
import pkgutil
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz import targets

import doorward

SOURCES = str(Path(doorward.__file__).parent)
CRASHES = Path(__file__).parent / "crashes"

# An ordinary input; most faults need no more, and ten thousand a second are tried.
USUAL = 8192
# What one input may use. Generous, for slow machines: a parser with quadratic time at its limit needs minutes.
SECONDS = 1.0
SECONDS_PER_BYTE = 8e-6
TRACED_COSTS = 10  # times as much, at the worst
MEMORY = 64 << 20
MEMORY_PER_BYTE = 192  # a Python object for every other byte
# The whole process, as a net below the bound above.
ADDRESS_SPACE = 2 << 30


class TooSlow(BaseException):
    """An input used more processor time than its size allows."""


class TooLarge(Exception):  # noqa: N818 - as above
    """An input made the process grow by more than its size allows."""


@dataclass(frozen=True)
class Target:
    """A module of ``tests/fuzz/targets``."""

    name: str
    fuzz: Callable[[bytes], object]
    covers: tuple[str, ...]  # the functions of the product that it feeds: ``protocol.stun:parse_request``
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]  # what inputs are made of
    limit: int  # bytes of the largest input that the product lets through to these parsers
    close: Callable[[], None]  # lets go of what it kept between inputs

    def crashes(self) -> list[Path]:
        """The inputs that failed once."""
        return sorted((CRASHES / self.name).glob("*"))


def load_targets() -> dict[str, Target]:
    """Every target, by name."""
    found = {}
    for info in pkgutil.iter_modules(targets.__path__):
        module = importlib.import_module(f"tests.fuzz.targets.{info.name}")
        seeds = tuple(getattr(module, "SEEDS", ())) or (b"", b"{}", bytes(32), bytes(range(256)))
        found[info.name] = Target(
            name=info.name,
            fuzz=module.fuzz,
            covers=tuple(module.COVERS),
            seeds=seeds,
            words=tuple(getattr(module, "WORDS", ())),
            limit=module.LIMIT,
            close=getattr(module, "close", lambda: None),
        )
    return found


class Coverage:
    """Which steps between lines of the product were ever taken, and which of its functions were entered."""

    def __init__(self) -> None:
        self.steps: set[tuple[int, int, int]] = set()
        self._numbers: dict[CodeType, int] = {}  # 0 for code that is not the product's

    def names(self) -> set[str]:
        """The functions that were entered, as ``package.module:Class.function``."""
        return {name_of(code) for code, number in self._numbers.items() if number}

    def watch(self, call: Callable[[], object]) -> bool:
        """Call it; True if it took a step that nobody took before."""
        before = len(self.steps)
        previous = sys.gettrace()
        sys.settrace(self._enter)
        try:
            call()
        finally:
            sys.settrace(previous)
        return len(self.steps) > before

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        number = self._numbers.get(code)
        if number is None:
            number = len(self._numbers) + 1 if code.co_filename.startswith(SOURCES) else 0
            self._numbers[code] = number
        if not number:
            return None
        steps, here = self.steps, 0

        def step(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal here
            if event == "line":
                line = frame.f_lineno
                steps.add((number, here, line))
                here = line
            return step

        return step


def name_of(code: CodeType) -> str:
    """A function's name as targets write it."""
    module = Path(code.co_filename).relative_to(SOURCES).with_suffix("")
    return f"{'.'.join(module.parts)}:{code.co_qualname.replace('<locals>.', '')}"


def bounded(call: Callable[[], object], size: int, *, traced: bool = False) -> None:
    """Call it with an input of ``size`` bytes; raises TooSlow or TooLarge, or what it raises."""
    allowed = (SECONDS + SECONDS_PER_BYTE * size) * (TRACED_COSTS if traced else 1)

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"{size} bytes took more than {allowed:.1f} s of processor time")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, allowed)
    try:
        call()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > MEMORY + MEMORY_PER_BYTE * size:
        raise TooLarge(f"{size} bytes took {grown >> 20} MiB of memory")


class Pool:
    """Inputs worth mutating, and how they are mutated."""

    def __init__(self, target: Target, seed: int) -> None:
        self.inputs = [seed[: target.limit] for seed in target.seeds]
        self._target = target
        self._words = (*target.words, *_WORDS)
        self._chance = random.Random(f"{target.name}-{seed}")

    def draw(self) -> bytes:
        """The next input of usual size."""
        chance = self._chance
        # Half the time one of the last found: what is behind them is least known.
        recent = self.inputs[-24:] if chance.random() < 0.5 else self.inputs
        data = bytearray(chance.choice(recent))
        for _ in range(1 << chance.randint(0, 4)):
            self._mutate(data)
        return bytes(data[: min(USUAL, self._target.limit)])

    def draw_large(self) -> bytes:
        """An input blown up towards the limit: a part of it repeated, what stands around the part kept."""
        chance, limit = self._chance, self._target.limit
        data = self.draw() or b"\0"
        size = chance.choice((limit, limit, limit // 4, chance.randint(1, limit)))
        start = chance.randint(0, len(data) - 1)
        end = min(len(data), start + chance.choice((1, 2, 8, 64, 512, len(data))))
        part = chance.choice(self._words) if chance.random() < 0.2 else data[start:end]
        times = max(1, (size - len(data)) // len(part))
        return bytes(data[:start] + part * times + data[end:])[:limit]

    def _mutate(self, data: bytearray) -> None:
        chance = self._chance
        at = chance.randint(0, len(data))
        match chance.randint(0, 9):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randint(0, 7)
            case 1 if data:
                data[at % len(data)] = chance.choice(b'\0\x01\x7f\x80\xff "\\,.:/[]{}0189azAZ%-_')
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                del data[at : at + (1 << chance.randint(0, 7))]
            case 4:
                end = at + chance.randint(1, 64)
                data[at:at] = data[at:end] * chance.randint(1, 4)
            case 5:
                other = chance.choice(self.inputs)
                start = chance.randint(0, len(other))
                data[at:] = other[start:]
            case 6:
                other = chance.choice(self.inputs)
                start = chance.randint(0, len(other))
                data[at : at + chance.randint(0, 32)] = other[start : start + chance.randint(1, 32)]
            case 7:
                data[at : at + 4] = chance.choice(_NUMBERS)
            case 8 if data:
                # A number written in digits, or a byte: one more or one less.
                data[at % len(data)] = (data[at % len(data)] + chance.choice((-1, 1))) % 256
            case _:
                word = chance.choice(self._words)
                end = at + (len(word) if chance.random() < 0.5 else 0)
                data[at:end] = word


_NUMBERS = (
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\xff\xff",
    b"\0\0\x10\0",
)
# What is special to many a parser of text.
_WORDS = (
    *(b'"', b"'", b"{", b"}", b"[", b"]", b"\\", b"\n", b"\r\n", b"\r\n\r\n", b"\t", b",", b":", b"=", b"#", b"%", b"/", b"@"),
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b"9" * 5000, b"-9223372036854775809", b"4294967296"),
    *(b"\xc3\x28", b"\xed\xa0\x80", b"\\ud800", b"\xef\xbb\xbf", "\u0661\u00b2\u2460".encode(), "\u0130\ufb01".encode(), b"\0"),
    *(b"0.0.0.0/0", b"::/0", b"::ffff:1.2.3.4", b"fe80::1%eth0", b"[::1]:80", b"1.2.3.4:5", b"100.64.0.1", b"..", b"../"),
    *(b'{"x":' * 1200, b"[" * 1200, b"(" * 1200),
    *(b"%00", b"%zz", b"%2f", b"http://", b"https://[", b"xn--", b"A" * 64, b"a" * 256, b"\x1b[2J"),
)  # fmt: skip


@dataclass
class Report:
    """What a run of one target came to."""

    name: str
    tried: int = 0
    large: int = 0
    seconds: float = 0.0
    seconds_large: float = 0.0  # of these, with inputs above the usual size
    steps: int = 0
    kept: int = 0
    faults: dict[str, Path] = field(default_factory=dict)  # where it failed, and the first input that did

    def line(self) -> str:
        """For a table."""
        rate = self.tried / self.seconds if self.seconds else 0.0
        return (
            f"{self.name:12} {self.seconds:7.0f} s {self.tried:9} inputs {rate:8.0f}/s {self.large:7} large"
            f" {self.steps:6} steps {self.kept:5} kept {len(self.faults):3} failed"
        )


def limit_memory() -> None:
    """A process that fuzzes must not take the machine down."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def run(target: Target, seconds: float, seed: int, *, crashes: Path = CRASHES, most: int = 20) -> Report:
    """Fuzz one target for so long, in seconds of the processor, or until Ctrl-C; faults that were not seen before are written to ``crashes``."""
    pool, coverage, report = Pool(target, seed), Coverage(), Report(target.name)
    began = time.process_time()
    for data in _inputs(target, pool, lambda: report.seconds_large < 0.2 * report.seconds):
        started = time.process_time()
        large = len(data) > USUAL
        report.tried += 1
        report.large += large
        try:
            if attempt(target, data, None if large else coverage):
                pool.inputs.append(data)
                report.kept += 1
        except KeyboardInterrupt:
            break
        except (Exception, TooSlow) as error:  # noqa: BLE001 - whatever it is, it is what we look for
            _keep(report, error, data, crashes / target.name)
        now = time.process_time()
        report.seconds_large += now - started if large else 0.0
        report.seconds = now - began
        if report.seconds >= seconds or len(report.faults) >= most:
            break
    target.close()
    report.steps = len(coverage.steps)
    return report


def attempt(target: Target, data: bytes, coverage: Coverage | None = None) -> bool:
    """Feed one input within its bounds; True if it took a step that ``coverage`` had not seen. Raises what it found."""
    new = False

    def call() -> None:
        nonlocal new
        if coverage is None:
            target.fuzz(data)
        else:
            new = coverage.watch(lambda: target.fuzz(data))

    bounded(call, len(data), traced=coverage is not None)
    return new


def _inputs(target: Target, pool: Pool, has_time: Callable[[], bool]) -> Iterator[bytes]:
    yield from target.seeds
    yield from (path.read_bytes() for path in target.crashes())
    drawn = 0
    while True:
        drawn += 1
        yield pool.draw_large() if drawn % 16 == 0 and target.limit > USUAL and has_time() else pool.draw()


def _keep(report: Report, error: BaseException, data: bytes, folder: Path) -> None:
    where = _fault(error)
    if where in report.faults:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    report.faults[where] = path
    sys.stderr.write(f"{report.name}: {where}: {path}\n")
    traceback.print_exception(error, limit=-6)


def _fault(error: BaseException) -> str:
    """A name for what went wrong, the same for every input that goes wrong there."""
    places = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "/fuzz/engine" not in frame.filename
    ]
    ours = [frame for frame in places if frame.filename.startswith(SOURCES)] or places
    last = ours[-1] if ours else None
    place = f"{Path(last.filename).name}:{last.lineno}" if last else "?"
    # Where the clock ran out says little: one such fault stands for all of the target.
    return (
        type(error).__name__
        if isinstance(error, TooSlow | MemoryError)
        else f"{type(error).__name__} {place}"
    )
