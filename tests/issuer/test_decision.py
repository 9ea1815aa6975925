"""The table of every request to sign in. One row a case: what differs from a silent sign-in, and what becomes of it."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from tests.support.nouns import NOW

from doorward.errors import BadInput
from doorward.issuer.decision import (
    Arrival,
    Decision,
    Facts,
    Known,
    Level,
    Reason,
    Verdict,
    age,
    arrival_of,
    decide,
    read_prompt,
    said_level,
)

SECOND = timedelta(seconds=1)
NONE = frozenset({"none"})
TABLE: list[tuple[dict[str, Any], Verdict, Reason, str]] = [
    ({}, Verdict.SILENT, Reason.GOOD, ""),
    ({"known": Known.SESSION}, Verdict.SILENT, Reason.GOOD, ""),
    ({"asks": True, "agreed": True}, Verdict.SILENT, Reason.GOOD, ""),
    ({"local": True, "agreed": True}, Verdict.SILENT, Reason.GOOD, ""),
    ({"max_age": SECOND, "age": SECOND}, Verdict.SILENT, Reason.GOOD, ""),
    ({"wanted": (Level.NETWORK,)}, Verdict.SILENT, Reason.GOOD, ""),
    ({"wanted": (Level.PASSKEY, Level.NETWORK)}, Verdict.SILENT, Reason.GOOD, ""),
    ({"prompt": NONE}, Verdict.SILENT, Reason.GOOD, ""),
    ({"arrival": Arrival.AHEAD}, Verdict.BAR, Reason.AHEAD, ""),
    ({"arrival": Arrival.INSIDE}, Verdict.BAR, Reason.INSIDE, ""),
    ({"arrival": Arrival.INSIDE, "known": Known.TAGGED}, Verdict.BAR, Reason.INSIDE, ""),
    ({"known": Known.TAGGED}, Verdict.REFUSE, Reason.TAGGED, "access_denied"),
    ({"known": Known.ROUTER}, Verdict.BAR, Reason.ROUTER, ""),
    ({"known": Known.ROUTER, "prompt": NONE}, Verdict.BAR, Reason.ROUTER, ""),
    ({"allowed": False}, Verdict.REFUSE, Reason.FORBIDDEN, "access_denied"),
    ({"allowed": False, "clicked": True, "proven": True}, Verdict.REFUSE, Reason.FORBIDDEN, "access_denied"),
    ({"postures": ("a",)}, Verdict.REFUSE, Reason.POSTURE, "unmet_authentication_requirements"),
    (
        {"postures": ("a",), "prompt": NONE},
        Verdict.REFUSE,
        Reason.POSTURE,
        "unmet_authentication_requirements",
    ),
    ({"postures": ("a", "b"), "posture": "b"}, Verdict.SILENT, Reason.GOOD, ""),
    ({"postures": ("a",), "posture": "a", "wanted": (Level.PASSKEY,)}, Verdict.PROVE, Reason.LEVEL, ""),
    ({"postures": ("a",), "known": Known.NOBODY}, Verdict.PROVE, Reason.NOBODY, ""),
    ({"known": Known.NOBODY}, Verdict.PROVE, Reason.NOBODY, ""),
    ({"known": Known.NOBODY, "prompt": NONE}, Verdict.REFUSE, Reason.NOBODY, "login_required"),
    ({"prompt": frozenset({"login"})}, Verdict.PROVE, Reason.LOGIN, ""),
    ({"prompt": frozenset({"login"}), "proven": True}, Verdict.SILENT, Reason.GOOD, ""),
    ({"prompt": frozenset({"login"}), "clicked": True}, Verdict.PROVE, Reason.LOGIN, ""),
    ({"max_age": SECOND, "age": 2 * SECOND}, Verdict.PROVE, Reason.TOO_OLD, ""),
    (
        {"max_age": SECOND, "age": 2 * SECOND, "prompt": NONE},
        Verdict.REFUSE,
        Reason.TOO_OLD,
        "login_required",
    ),
    ({"max_age": timedelta(0), "age": SECOND, "proven": True}, Verdict.SILENT, Reason.GOOD, ""),
    ({"signed_out": True}, Verdict.ASK, Reason.SIGNED_OUT, ""),
    ({"signed_out": True, "agreed": True}, Verdict.ASK, Reason.SIGNED_OUT, ""),
    ({"signed_out": True, "clicked": True}, Verdict.SILENT, Reason.GOOD, ""),
    ({"signed_out": True, "prompt": NONE}, Verdict.REFUSE, Reason.SIGNED_OUT, "login_required"),
    ({"wanted": (Level.PASSKEY,)}, Verdict.PROVE, Reason.LEVEL, ""),
    ({"wanted": (Level.PASSKEY,), "proven": True, "level": Level.SESSION}, Verdict.SILENT, Reason.GOOD, ""),
    ({"wanted": (Level.PASSKEY,), "prompt": NONE}, Verdict.REFUSE, Reason.LEVEL, "login_required"),
    ({"wanted": (Level.CLICK,)}, Verdict.ASK, Reason.LEVEL, ""),
    ({"wanted": (Level.CLICK,), "clicked": True, "level": Level.CLICK}, Verdict.SILENT, Reason.GOOD, ""),
    ({"other_person": True}, Verdict.ASK, Reason.OTHER_PERSON, ""),
    ({"other_person": True, "prompt": NONE}, Verdict.REFUSE, Reason.OTHER_PERSON, "login_required"),
    ({"prompt": frozenset({"consent"}), "agreed": True}, Verdict.ASK, Reason.CONSENT, ""),
    ({"prompt": frozenset({"select_account"})}, Verdict.ASK, Reason.CONSENT, ""),
    ({"asks": True}, Verdict.ASK, Reason.FIRST, ""),
    ({"asks": True, "clicked": True}, Verdict.SILENT, Reason.GOOD, ""),
    ({"asks": True, "prompt": NONE}, Verdict.REFUSE, Reason.FIRST, "consent_required"),
    ({"local": True}, Verdict.ASK, Reason.LOCAL, ""),
    ({"local": True, "prompt": NONE}, Verdict.REFUSE, Reason.LOCAL, "consent_required"),
    ({"arrival": Arrival.UNSAID}, Verdict.ASK, Reason.UNSAID, ""),
    ({"arrival": Arrival.UNSAID, "prompt": NONE}, Verdict.REFUSE, Reason.UNSAID, "interaction_required"),
    ({"often": True}, Verdict.ASK, Reason.OFTEN, ""),
    ({"often": True, "prompt": NONE}, Verdict.REFUSE, Reason.OFTEN, "interaction_required"),
]


@pytest.mark.parametrize(("differs", "verdict", "reason", "error"), TABLE, ids=repr)
def test_the_table(differs: dict[str, Any], verdict: Verdict, reason: Reason, error: str) -> None:
    facts = Facts(**({"known": Known.DEVICE, "arrival": Arrival.PAGE} | differs))
    assert decide(facts) == Decision(verdict, reason, error)


def test_what_must_never_be_silent_is_not_whatever_else_holds() -> None:
    switches = ("allowed", "asks", "local", "agreed", "proven", "clicked", "often", "other_person")
    for known, arrival in product(Known, Arrival):
        for values in product((False, True), repeat=len(switches)):
            given: dict[str, Any] = dict(zip(switches, values, strict=True))
            facts = Facts(known=known, arrival=arrival, **given)
            if decide(facts).verdict is Verdict.SILENT:
                assert known in {Known.DEVICE, Known.SESSION}
                assert arrival in {Arrival.PAGE, Arrival.UNSAID}
                assert facts.allowed
                assert arrival is Arrival.PAGE or facts.clicked
                assert not facts.local or facts.agreed or facts.clicked
                assert not facts.asks or facts.agreed or facts.clicked


@pytest.mark.parametrize(
    ("headers", "arrival"),
    [
        (
            {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "cross-site"},
            Arrival.PAGE,
        ),
        ({"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, Arrival.INSIDE),
        ({"sec-fetch-mode": "navigate", "sec-fetch-dest": "object"}, Arrival.INSIDE),
        ({"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, Arrival.INSIDE),
        ({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, Arrival.INSIDE),
        ({"sec-fetch-site": "cross-site"}, Arrival.INSIDE),
        ({"sec-fetch-mode": "navigate"}, Arrival.INSIDE),
        (
            {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-purpose": "prefetch;prerender"},
            Arrival.AHEAD,
        ),
        ({"purpose": "prefetch"}, Arrival.AHEAD),
        ({}, Arrival.UNSAID),
    ],
)
def test_how_a_request_was_made(headers: dict[str, str], arrival: Arrival) -> None:
    assert arrival_of(headers) is arrival


def test_prompts_are_read() -> None:
    assert read_prompt("login  consent new") == {"login", "consent"}
    assert read_prompt("") == frozenset()
    with pytest.raises(BadInput, match="alone"):
        read_prompt("none login")


def test_a_clock_that_was_set_back_makes_nobody_older() -> None:
    assert age(NOW, NOW - SECOND) == timedelta(0)
    assert age(NOW, NOW + SECOND) == SECOND


def test_less_than_an_app_must_have_is_a_refusal_once_nothing_more_can_be_done() -> None:
    wanted = Facts(known=Known.SESSION, arrival=Arrival.PAGE, level=Level.SESSION, wanted=(Level.PASSKEY,))
    needed = replace(wanted, essential=True)
    assert decide(needed).verdict is Verdict.PROVE
    assert decide(replace(wanted, proven=True)).verdict is Verdict.SILENT
    refused = decide(replace(needed, proven=True))
    assert (refused.verdict, refused.error) == (Verdict.REFUSE, "unmet_authentication_requirements")
    assert decide(replace(needed, proven=True, level=Level.PASSKEY)).verdict is Verdict.SILENT
    # None of the values that it takes is one of ours.
    assert decide(replace(needed, wanted=())).verdict is Verdict.REFUSE
    assert decide(replace(needed, wanted=(), postures=("p",), posture="p")).verdict is Verdict.SILENT


def test_somebody_whom_the_app_does_not_want_is_not_even_asked() -> None:
    facts = Facts(
        known=Known.DEVICE, arrival=Arrival.PAGE, stranger=True, asks=True, clicked=True, proven=True
    )
    for one in (
        facts,
        replace(facts, clicked=False),
        replace(facts, prompt=frozenset({"login"}), proven=False),
    ):
        assert (decide(one).verdict, decide(one).error) == (Verdict.REFUSE, "login_required")
    assert decide(replace(facts, known=Known.NOBODY)).verdict is Verdict.PROVE


def test_the_level_that_an_app_is_told() -> None:
    facts = Facts(
        known=Known.SESSION, arrival=Arrival.PAGE, level=Level.PASSKEY, wanted=(Level.NETWORK, Level.CLICK)
    )
    assert said_level(facts) == Level.PASSKEY
    assert said_level(replace(facts, essential=True)) == Level.CLICK
    assert said_level(replace(facts, essential=True, wanted=(Level.REMOTE,))) == Level.PASSKEY
    assert said_level(replace(facts, essential=True, posture="p")) == "p"
