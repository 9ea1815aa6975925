import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput
from doorward.protocol.auditlog import (
    FIRST,
    AuditPrivate,
    AuditPublic,
    Checkpoint,
    Fault,
    Sealed,
    Verdict,
    Walk,
    canonical,
    digest_of,
    read_checkpoint,
    read_event,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
KEY = AuditPrivate(bytes(range(32)))
OTHER = AuditPrivate(bytes(32))


def seal(previous: bytes, seq: int, **fields: Any) -> Sealed:
    """An event as it is sealed behind another."""
    values: dict[str, Any] = {
        "seq": seq,
        "at": NOW + timedelta(seconds=seq),
        "actor": "cli",
        "action": "node.rename",
        "target": f"node:n{seq}",
        "details": canonical({"name": f"é{seq}", "before": {"name": None}}),
        "previous": previous,
        **fields,
    }
    return Sealed(**values, digest=digest_of(**values))


@dataclass
class Log:
    """A good log, for tests to spoil."""

    count: int = 8
    events: list[Sealed] = field(default_factory=list)

    def __post_init__(self) -> None:
        previous = FIRST
        for seq in range(1, self.count + 1):
            self.events.append(seal(previous, seq))
            previous = self.events[-1].digest

    def sign(self, seq: int, key: AuditPrivate = KEY) -> Checkpoint:
        return key.sign(seq, self.events[seq - 1].digest, NOW + timedelta(hours=seq))


def look(events: Sequence[Sealed], *checkpoints: Checkpoint, **options: Any) -> Verdict:
    walk = Walk(checkpoints, **options)
    for event in events:
        walk.step(event)
    return walk.finish()


def faults(verdict: Verdict) -> list[tuple[int, Fault]]:
    return [(problem.seq, problem.fault) for problem in verdict.problems]


def test_the_digest_is_what_the_description_says() -> None:
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    digest = digest_of(
        previous=bytes(32), seq=1, at=at, actor="cli", action="policy.set", target="polic\xe9", details="{}"
    )
    expected = hashlib.sha256(
        b"doorward audit event 1"
        + bytes(32)
        + b"\0\0\0\0\0\0\0\x01"
        + b"\0\0\0\0\0\x0f\x42\x40"
        + b"\0\0\0\0\0\0\0\x03cli"
        + b"\0\0\0\0\0\0\0\x0apolicy.set"
        + b"\0\0\0\0\0\0\0\x07polic\xc3\xa9"
        + b"\0\0\0\0\0\0\0\x02{}"
    )
    assert digest == expected.digest()


def test_a_checkpoint_is_signed_as_the_description_says() -> None:
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    checkpoint = KEY.sign(2, b"d" * 32, at)
    # The seed 00 01 .. 1f has this public key (RFC 8032, section 5.1.5), whoever computes it.
    signed = b"doorward audit checkpoint 1" + b"\0" * 7 + b"\2" + b"\0\0\0\0\0\x0f\x42\x40" + b"d" * 32
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - here alone

    Ed25519PublicKey.from_public_bytes(checkpoint.key.raw).verify(checkpoint.signature, signed)
    assert str(checkpoint.key) == "auditkey:03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"


def test_a_good_log_is_good() -> None:
    log = Log()
    found = look(log.events, log.sign(3), log.sign(8))
    assert found.problems == ()
    assert (found.events, found.first, found.last, found.confirmed) == (8, 1, 8, 8)
    assert (found.digest, found.keys) == (log.events[-1].digest, (KEY.public(),))
    assert look([]).problems == ()
    assert look(log.events).confirmed == 0


@pytest.mark.parametrize("name", ["at", "actor", "action", "target", "details", "previous", "digest"])
@pytest.mark.parametrize("index", [0, 3, 7])
def test_a_change_of_any_field_names_its_event(name: str, index: int) -> None:
    log = Log()
    event = log.events[index]
    value: Any = getattr(event, name)
    changed = value + timedelta(microseconds=1) if name == "at" else value[1:] + value[:1]
    if changed == value:  # the zeros before the first event
        changed = b"\1" * 32
    log.events[index] = msgspec.structs.replace(event, **{name: changed})
    found = look(log.events)
    assert found.problems[0].seq == index + 1
    assert (index + 1, Fault.ALTERED) in faults(found)
    # Only the seal of the event itself is wrong; where that was changed, the next one does not fit to it either.
    assert {seq for seq, _ in faults(found)} <= {index + 1, index + 2}


def test_an_altered_event_that_was_sealed_anew_does_not_fit_to_the_next() -> None:
    log = Log()
    log.events[3] = seal(log.events[2].digest, 4, actor="nobody")
    assert faults(look(log.events)) == [(5, Fault.UNLINKED)]
    # Its checkpoint says which it was.
    good = Log().sign(4)
    assert faults(look(log.events, good)) == [(4, Fault.RESEALED), (5, Fault.UNLINKED)]


def test_a_log_sealed_anew_from_a_place_on_shows_at_the_next_checkpoint() -> None:
    good = Log()
    previous = good.events[3].digest
    forged = good.events[:4]
    for seq in range(5, 9):
        forged.append(seal(previous, seq, actor="nobody"))
        previous = forged[-1].digest
    assert look(forged).problems == ()
    found = look(forged, good.sign(2), good.sign(7))
    assert faults(found) == [(7, Fault.RESEALED)]
    assert found.confirmed == 2
    assert "behind event 2" in found.problems[0].text


@pytest.mark.parametrize(
    ("kept", "expected", "words"),
    [
        ([2, 3, 4, 5, 6, 7, 8], [(1, Fault.MISSING)], "event 1 is missing"),
        ([1, 2, 5, 6, 7, 8], [(3, Fault.MISSING)], "events 3 to 4 are missing"),
        ([1, 2, 4, 6, 7, 8], [(3, Fault.MISSING), (5, Fault.MISSING)], "event 3 is missing"),
        ([1, 2, 4, 3, 5, 6, 7, 8], [(3, Fault.OUT_OF_ORDER)], "event 3 stands behind event 4"),
        ([1, 5, 2, 4, 6, 7, 8], [(2, "o"), (3, Fault.MISSING), (4, "o")], "event 2 stands behind event 5"),
    ],
)
def test_what_is_missing_or_out_of_order(kept: list[int], expected: list[Any], words: str) -> None:
    log = Log()
    found = look([log.events[seq - 1] for seq in kept])
    assert faults(found) == [(seq, Fault.OUT_OF_ORDER if fault == "o" else fault) for seq, fault in expected]
    assert found.problems[0].text == words


def test_an_event_put_in_between_is_one_too_many() -> None:
    log = Log()
    extra = seal(log.events[3].digest, 5, actor="nobody")
    found = look([*log.events[:4], extra, *log.events[4:]])
    assert (5, Fault.OUT_OF_ORDER) in faults(found)
    assert (6, Fault.UNLINKED) in faults(found)


def test_a_late_event_must_be_the_one_that_was_missing() -> None:
    log = Log()
    forged = seal(log.events[1].digest, 3, actor="nobody")
    found = look([*log.events[:2], log.events[3], forged, *log.events[4:]])
    assert faults(found) == [(3, Fault.OUT_OF_ORDER), (3, Fault.UNLINKED)]


@pytest.mark.parametrize("left", [0, 5, 7])
def test_an_end_that_was_cut_off_shows_by_a_checkpoint_alone(left: int) -> None:
    log = Log()
    assert look(log.events[:left]).problems == ()
    found = look(log.events[:left], log.sign(8), log.sign(6))
    assert faults(found) == [(left + 1, Fault.TRUNCATED)]
    assert f"ends with event {left}" in found.problems[0].text
    assert f"{8 - left} event" in found.problems[0].text


def test_events_that_came_twice_are_no_fault() -> None:
    log = Log()
    found = look([*log.events[:5], *log.events[2:]])
    assert found.problems == ()
    assert found.events == 8
    other = msgspec.structs.replace(log.events[2], actor="nobody")
    assert faults(look([*log.events[:5], other, *log.events[5:]])) == [
        (3, Fault.ALTERED),
        (3, Fault.OUT_OF_ORDER),
    ]


def test_a_part_need_not_begin_with_the_first() -> None:
    log = Log()
    part = log.events[3:]
    assert faults(look(part)) == [(1, Fault.MISSING)]
    found = look(part, log.sign(2), log.sign(6), part=True)
    assert (found.problems, found.first, found.last, found.confirmed) == ((), 4, 8, 6)


def test_a_checkpoint_that_was_touched_counts_for_nothing() -> None:
    log = Log()
    good = log.sign(8)
    for forged in (
        msgspec.structs.replace(good, seq=9),
        msgspec.structs.replace(good, digest=bytes(32)),
        msgspec.structs.replace(good, at=NOW),
        msgspec.structs.replace(good, key=OTHER.public()),
        msgspec.structs.replace(good, signature=bytes(64)),
    ):
        assert not forged.holds()
        found = look(log.events, forged)
        assert faults(found) == [(forged.seq, Fault.CHECKPOINT)]
        assert (found.confirmed, found.keys) == (0, ())


def test_only_the_checkpoints_of_a_trusted_key_count() -> None:
    log = Log()
    both = log.sign(8), log.sign(8, OTHER)
    assert look(log.events, *both).keys == (KEY.public(), OTHER.public())
    found = look(log.events, *both, trusted=[KEY.public()])
    assert faults(found) == [(8, Fault.CHECKPOINT)]
    assert "signed with another key" in found.problems[0].text


def test_a_log_that_is_all_wrong_is_not_told_for_ever() -> None:
    walk = Walk()
    for seq in range(2, 5000, 2):
        walk.step(seal(FIRST, seq))
    assert len(walk.finish().problems) == 1000


def test_what_is_written_is_read_again() -> None:
    log = Log(2)
    checkpoint = log.sign(2)
    assert read_checkpoint(checkpoint.line()) == checkpoint
    event = log.events[1]
    line = msgspec.json.encode(
        {
            **{name: getattr(event, name) for name in ("seq", "at", "actor", "action", "target")},
            "details": msgspec.json.decode(event.details),
            "previous": event.previous.hex(),
            "digest": event.digest.hex(),
        }
    )
    assert read_event(line) == event
    # Another program may have set it out differently.
    assert read_event(json.dumps(json.loads(line), indent=1, sort_keys=True)) == event


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[]", "null", '{"seq": 0}', "\xff", "[" * 100_000, '{"seq":1,"at":"2026-01-02T03:04:05"}'],
)
def test_what_is_no_line_of_ours_is_refused(line: str) -> None:
    for read in (read_event, read_checkpoint):
        with pytest.raises(BadInput, match="this is no"):
            read(line.encode("latin-1"))


def test_a_checkpoint_with_another_kind_of_key_is_refused() -> None:
    line = Log(1).sign(1).line().replace("auditkey:", "mkey:")
    with pytest.raises(BadInput, match="auditkey:<64"):
        read_checkpoint(line)


def test_the_private_key_hides_itself() -> None:
    text = KEY.serialize()
    assert AuditPrivate.parse(text).public() == KEY.public()
    assert text not in repr(KEY)
    assert bytes(range(32)).hex() not in f"{KEY!r} {KEY}"
    for bad in ("", text[:-1], text.removeprefix("auditprivkey:"), text[:-1] + "x"):
        with pytest.raises(BadInput) as refused:
            AuditPrivate.parse(bad)
        assert bytes(range(32)).hex() not in str(refused.value)
    with pytest.raises(BadInput):
        AuditPrivate(bytes(31))
    assert AuditPublic.parse(str(KEY.public())) == KEY.public()


_DETAILS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)


@given(_DETAILS)
def test_details_keep_their_text_through_an_export(details: dict[str, Any]) -> None:
    text = canonical(details)
    assert canonical(msgspec.json.decode(text)) == text


@given(st.lists(st.integers(0, 7), max_size=12))
def test_any_order_but_the_right_one_is_found(picked: list[int]) -> None:
    """Whatever is taken from a good log: it is called whole only if it is a beginning of it, repetitions apart."""
    log = Log()
    seen: list[int] = []
    for index in picked:
        if index not in seen:
            seen.append(index)
    whole = seen == list(range(len(seen)))
    assert (look([log.events[index] for index in picked]).problems == ()) is whole
