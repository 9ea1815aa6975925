import json
from typing import Any

import msgspec
import pytest
from tests.support.authenticator import PRESENT, Authenticator, raw
from tests.support.nouns import NOW

from doorward.login import passkeys
from doorward.login.doors import place_of
from doorward.login.passkeys import BadPasskey
from doorward.model import Passkey, User

PLACE = place_of("https://door.example.com")
OTHER = place_of("https://other.example.com")
ANN = User(id=7, name="ann", display_name="Ann", created=NOW)
CHALLENGE = bytes(range(32))


def made(authenticator: Authenticator) -> Passkey:
    options = passkeys.asked_to_make(PLACE, CHALLENGE, ANN, "example", ())
    answer = authenticator.make(options, PLACE.origin)
    found = passkeys.check_made(answer, PLACE, CHALLENGE)
    assert passkeys.credential_of(answer) == found.credential
    assert found.transports == ("internal",)
    return Passkey(
        id=1,
        user_id=7,
        credential=found.credential,
        public_key=found.public_key,
        count=found.signatures,
        name="laptop",
        place=PLACE.host,
        transports=found.transports,
        created=NOW,
    )


def test_a_passkey_is_made_and_signs() -> None:
    authenticator = Authenticator()
    passkey = made(authenticator)
    options = passkeys.asked_to_sign(PLACE, CHALLENGE, (passkey,))
    assert [raw(one["id"]) for one in options["allowCredentials"]] == [passkey.credential]
    assert options["userVerification"] == "required"
    answer = authenticator.sign(options, PLACE.origin)
    assert passkeys.check_signature(answer, PLACE, CHALLENGE, passkey) == 1
    again = msgspec.structs.replace(passkey, count=1)
    with pytest.raises(BadPasskey):  # a copy of the key would count from where it was taken
        passkeys.check_signature(answer, PLACE, CHALLENGE, again)


def test_what_is_asked_names_nobody_to_others_and_no_passkey_of_another_place() -> None:
    passkey = made(Authenticator())
    elsewhere = msgspec.structs.replace(passkey, place="other.example.com")
    assert passkeys.asked_to_sign(PLACE, CHALLENGE, (elsewhere,))["allowCredentials"] == []
    options = passkeys.asked_to_make(PLACE, CHALLENGE, ANN, "example", (passkey,))
    assert len(options["excludeCredentials"]) == 1
    assert b"ann" not in raw(options["user"]["id"])


def lies() -> list[tuple[str, Any]]:
    return [
        ("another challenge", {"challenge": bytes(32)}),
        ("another origin", {"origin": "https://evil.example.com"}),
        ("another place", {"place": OTHER}),
        ("nobody verified", {"flags": PRESENT}),
        ("nobody present", {"flags": 0}),
        ("another's key", {"key": True}),
    ]


@pytest.mark.parametrize(("lie", "how"), lies(), ids=[name for name, _ in lies()])
def test_what_does_not_hold_is_refused(lie: str, how: dict[str, Any]) -> None:
    authenticator = Authenticator()
    passkey = made(authenticator)
    if "key" in how:
        passkey = msgspec.structs.replace(passkey, public_key=made(Authenticator()).public_key)
    authenticator.flags = how.get("flags", authenticator.flags)
    place = how.get("place", PLACE)
    options = passkeys.asked_to_sign(place, how.get("challenge", CHALLENGE), ())
    answer = authenticator.sign(options, how.get("origin", place.origin), passkey.credential)
    with pytest.raises(BadPasskey) as refused:
        passkeys.check_signature(answer, PLACE, CHALLENGE, passkey)
    assert refused.value.cure
    with pytest.raises(BadPasskey):
        passkeys.check_signature(answer, OTHER, CHALLENGE, passkey)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"rawId": 5}',
        '{"rawId": ""}',
        '{"rawId": "!"}',
        '{"rawId": "ü"}',
        "[" * 10_000,
        '{"rawId": "AAAA", "id": "AAAA", "type": "public-key", "response": {}}',
        json.dumps(
            {"rawId": "AAAA", "id": "AAAA", "type": "public-key", "response": {"clientDataJSON": "AA"}}
        ),
        '{"rawId": "' + "A" * 20_000 + '"}',
    ],
)
def test_rubbish_is_no_passkey(answer: str) -> None:
    passkey = made(Authenticator())
    with pytest.raises(BadPasskey):
        passkeys.check_made(answer, PLACE, CHALLENGE)
    with pytest.raises(BadPasskey):
        passkeys.check_signature(answer, PLACE, CHALLENGE, passkey)
    if '"AAAA"' not in answer:
        with pytest.raises(BadPasskey):
            passkeys.credential_of(answer)
