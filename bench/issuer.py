"""What tokens cost the issuer: a real ``doorward serve``, a store with fsync, the policy asked each time, an audit event for each.

The server is held to one core and the client to another; a hundred ask at once, and counted is the server's CPU, of all its threads.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from joserfc.jws import JWSRegistry
from tests.support.postgres import cluster

from bench.asking import Answer, Party, Task
from bench.machine import CORES, Process
from bench.providers import Asker, Issuer, issuer, require_tsidp, tsidp
from bench.table import Better, Figures, Found, Group, Options, Row
from doorward.issuer.keys import _ec, _rsa

AT_ONCE = 100
SESSIONS = 100_000
PLAIN = ("profile", "offline_access")  # an access token for each refresh token, and no ID token
WHOLE = ("openid", *PLAIN)
_TEXT = b"x" * 500  # about what is signed of a token


class Length(dict[str, Any]):
    """How long something is asked, in seconds; in a smoke run not at all long."""

    def __init__(self, options: Options) -> None:
        super().__init__(seconds=0.1 if options.smoke else 2.0, settle=0.02 if options.smoke else 0.5)


def crypto(algorithm: str, *, signatures: int = 1, checks: int = 0) -> float:
    """How often in a CPU second so many signatures can be made and looked at, and nothing else."""
    key, method = (_ec if algorithm == "ES256" else _rsa)(), JWSRegistry.algorithms[algorithm]
    made = method.sign(_TEXT, key)
    method.verify(_TEXT, made, key)
    count, began = 0, time.process_time()
    while (passed := time.process_time() - began) < 0.05:
        for _ in range(signatures):
            method.sign(_TEXT, key)
        for _ in range(checks):
            method.verify(_TEXT, made, key)
        count += 1
    return count / passed


def per_cpu(answer: Answer) -> float:
    """Things done in a CPU second of the server."""
    return answer.count / answer.cpu


def waited(answer: Answer, part: float) -> float:
    """Milliseconds within which this part of them was answered."""
    return sorted(answer.waits)[min(int(answer.count * part), answer.count - 1)] * 1000


def told(answers: list[Answer]) -> str:
    """What else there is to say: how many in a second, and how busy both sides were."""
    rate, server, client = (
        statistics.median(values)
        for values in zip(
            *((one.count / one.passed, one.cpu / one.passed, one.own / one.passed) for one in answers),
            strict=True,
        )
    )
    return f"{rate:,.0f}/s; server {100 * server:.0f} % of a core, client {100 * client:.0f} %"


def crowd_of(size: int, options: Options) -> int:
    """So many; a few in a smoke run."""
    return 4 if options.smoke else size


async def rounds(count: int, asker: Asker, task: Callable[[], Coroutine[Any, Any, Task]]) -> list[Answer]:
    """Several rounds of the same."""
    return [await asker.ask(await task()) for _ in range(count)]


async def holders(here: Issuer, algorithm: str, count: int, scopes: tuple[str, ...]) -> list[Party]:
    """Parties with a refresh token each."""
    return [Party(token=token) for token in await here.given(algorithm, count, scopes)]


async def refreshing(
    here: Issuer, options: Options, algorithm: str, scopes: tuple[str, ...], at_once: int
) -> Task:
    """Refresh tokens are exchanged, by so many at once."""
    parties = await holders(here, algorithm, crowd_of(at_once, options), scopes)
    return here.task("refresh", algorithm, parties, **Length(options))


async def signing_in(here: Issuer, options: Options, algorithm: str, at_once: int) -> Task:
    """Whole sign-ins. Each is of another browser, or the limits would count."""
    cookie = await here.browser()
    parties = [Party(cookie=cookie, network=f"10.{number}") for number in range(crowd_of(at_once, options))]
    return here.task("sign in", algorithm, parties, **Length(options))


async def inspecting(here: Issuer, options: Options) -> Task:
    """Somebody asks whether an access token is good."""
    token = await here.access_token()
    return here.task(
        "introspect",
        "ES256",
        [Party(token=token) for _ in range(crowd_of(AT_ONCE, options))],
        **Length(options),
    )


def pin(pids: list[int], options: Options) -> None:
    """Hold the server to one core, where there is another for the client."""
    if len(CORES) > 1 and not options.smoke:
        for pid in pids:
            Process(pid).pin(CORES[0])


async def _tokens(options: Options) -> Found:
    found: Found = {}
    async with issuer() as here, Asker() as asker:
        pin([here.server.worker_pid()], options)
        count = options.rounds
        await asker.ask(await refreshing(here, options, "ES256", PLAIN, AT_ONCE))  # the first has keys made
        for name, algorithm, scopes in (
            ("token-es256", "ES256", PLAIN),
            ("token-rs256", "RS256", PLAIN),
            ("token-id-es256", "ES256", WHOLE),
        ):
            every = await rounds(count, asker, partial(refreshing, here, options, algorithm, scopes, AT_ONCE))
            bare = [crypto(algorithm, signatures=1 + (scopes is WHOLE)) for _ in range(count)]
            found[name] = Figures([per_cpu(one) for one in every], bare, told(every))
        own = [
            await asker.ask(here.task("own", "ES256", [Party() for _ in range(AT_ONCE)], **Length(options)))
            for _ in range(count)
        ]
        bare = [crypto("ES256") for _ in range(count)]
        found["token-own"] = Figures([per_cpu(one) for one in own], bare, told(own))
        every = await rounds(count, asker, partial(inspecting, here, options))
        bare = [crypto("ES256", signatures=0, checks=1) for _ in range(count)]
        found["introspect"] = Figures([per_cpu(one) for one in every], bare, told(every))
        every = await rounds(count, asker, partial(signing_in, here, options, "ES256", AT_ONCE))
        bare = [crypto("ES256", signatures=2, checks=1) for _ in range(count)]
        found["app-signin"] = Figures([per_cpu(one) for one in every], bare, told(every))
        found |= await _waits(here, asker, options)
        found["app-sessions"] = await _memory(here, asker, options)
    return found


async def _waits(here: Issuer, asker: Asker, options: Options) -> Found:
    """How long one of a hundred waits, and one who is alone."""
    crowd = await rounds(options.rounds, asker, partial(refreshing, here, options, "ES256", PLAIN, AT_ONCE))
    alone = await rounds(options.rounds, asker, partial(refreshing, here, options, "ES256", PLAIN, 1))
    return {
        f"token-p{part}": Figures(
            [waited(one, part / 100) for one in crowd],
            [waited(one, part / 100) for one in alone],
            told(crowd),
        )
        for part in (50, 99)
    }


async def _memory(here: Issuer, asker: Asker, options: Options) -> Figures:
    """The worker's memory with many live sessions, after some of them were used and the policy has changed once."""
    process = Process(here.server.worker_pid())
    before, count = process.kilobytes() / 1024, 100 if options.smoke else SESSIONS
    tokens = await here.given("ES256", count, WHOLE)
    parties = [Party(token=token) for token in tokens[:AT_ONCE]]
    await here.server.set_policy('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}')
    await asker.ask(here.task("refresh", "ES256", parties, **Length(options)))
    size = sum(file.stat().st_size for file in here.server.folder.glob("doorward.db*")) / 1e6
    return Figures(
        [process.kilobytes() / 1024], [before], f"{count:,} sessions; the database has {size:.0f} MB"
    )


async def _postgres(options: Options) -> Found:
    with cluster() as postgres:
        async with issuer(postgres.create_database()) as here, Asker() as asker:
            pin([here.server.worker_pid()], options)
            await asker.ask(await refreshing(here, options, "ES256", PLAIN, AT_ONCE))
            every = await rounds(
                options.rounds, asker, partial(refreshing, here, options, "ES256", PLAIN, AT_ONCE)
            )
    bare = [crypto("ES256") for _ in range(options.rounds)]
    return {"token-postgresql": Figures([per_cpu(one) for one in every], bare, told(every))}


async def _beside(options: Options) -> Found:
    program = require_tsidp(make=not options.smoke)
    found: dict[str, list[Answer]] = {"ours": [], "theirs": []}
    async with issuer() as here, Asker() as asker, tsidp(program) as there, there.asker() as other:
        pin([here.server.worker_pid(), there.pid, there.daemon], options)
        await asker.ask(await signing_in(here, options, "RS256", AT_ONCE))
        await other.ask(there.task(crowd_of(AT_ONCE, options), **Length(options)))
        resident = Process(there.pid).kilobytes()
        for _ in range(options.rounds):
            found["ours"].append(await asker.ask(await signing_in(here, options, "RS256", AT_ONCE)))
            found["theirs"].append(await other.ask(there.task(crowd_of(AT_ONCE, options), **Length(options))))
        grown = Process(there.pid).kilobytes() - resident
    ours, theirs = found["ours"], found["theirs"]
    kept = sum(one.count for one in theirs)
    return {
        "app-signin-tsidp": Figures(
            [per_cpu(one) for one in ours],
            [per_cpu(one) for one in theirs],
            f"{told(ours)}; tsidp {told(theirs)}; it keeps all in memory, {grown / kept:.1f} KB for each sign-in",
        ),
        "app-signin-tsidp-p99": Figures(
            [waited(one, 0.99) for one in ours], [waited(one, 0.99) for one in theirs]
        ),
    }


def _run(bench: Callable[[Options], Coroutine[Any, Any, Found]], options: Options) -> Found:
    return asyncio.run(bench(options))


def _row(
    name: str,
    what: str,
    baseline: str,
    *,
    unit: str = "/CPU-s",
    must: float | None = None,
    aim: float | None = None,
) -> Row:
    better = Better.MORE if unit == "/CPU-s" else Better.LESS
    return Row(id=name, what=what, unit=unit, baseline=baseline, must=must, aim=aim, better=better)


_SIGNATURE = "its signature alone"
_EXCHANGED = "a refresh token exchanged for an access token"

GROUPS = (
    Group(
        name="issuer",
        rows=(
            _row("token-es256", f"{_EXCHANGED}, ES256", _SIGNATURE, must=1000, aim=4000),
            _row("token-rs256", f"{_EXCHANGED}, RS256", _SIGNATURE, must=400, aim=900),
            _row("token-id-es256", "the same with an ID token, ES256", "its two signatures alone"),
            _row("token-own", "an app's own token (client credentials), ES256", _SIGNATURE),
            _row("introspect", "an access token looked at (introspection), ES256", "its signature checked"),
            _row("app-signin", "a whole sign-in: authorize, token, userinfo; ES256", "its three signatures"),
            _row(
                "token-p50",
                f"{_EXCHANGED}, a hundred at once: half of them within",
                "one at a time",
                unit="ms",
            ),
            _row("token-p99", "the same, 99 of 100 within", "one at a time", unit="ms"),
            _row("app-sessions", "memory of the worker with 100,000 live sessions", "before", unit="MB"),
        ),
        run=partial(_run, _tokens),
        seconds=130,
    ),
    Group(
        name="issuer, PostgreSQL",
        rows=(_row("token-postgresql", f"{_EXCHANGED}, ES256, over PostgreSQL", _SIGNATURE),),
        run=partial(_run, _postgres),
        seconds=20,
    ),
    Group(
        name="issuer, tsidp",
        rows=(
            _row("app-signin-tsidp", "a whole sign-in, RS256, a hundred at once", "tsidp and its daemon"),
            _row("app-signin-tsidp-p99", "the same, 99 of 100 within", "tsidp", unit="ms"),
        ),
        run=partial(_run, _beside),
        seconds=40,
    ),
)
