"""Keys: one type per key, strict texts, and private halves that never show themselves."""

import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput
from doorward.protocol.keys import (
    ChallengePrivate,
    ChallengePublic,
    DERPPrivate,
    DERPPublic,
    DiscoPrivate,
    DiscoPublic,
    MachinePrivate,
    MachinePublic,
    NodePrivate,
    NodePublic,
    PrivateKey,
    PublicKey,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "x25519.json").read_text())
PUBLIC: dict[type[PublicKey], str] = {
    MachinePublic: "mkey:",
    NodePublic: "nodekey:",
    DiscoPublic: "discokey:",
    ChallengePublic: "chalpub:",
    DERPPublic: "",
}
PAIRS: dict[type[PrivateKey], type[PublicKey]] = {
    MachinePrivate: MachinePublic,
    NodePrivate: NodePublic,
    DiscoPrivate: DiscoPublic,
    ChallengePrivate: ChallengePublic,
    DERPPrivate: DERPPublic,
}
SECRET = bytes(range(100, 132))


@pytest.mark.parametrize("vector", VECTORS["diffie_hellman"], ids=lambda vector: str(vector["source"]))
def test_x25519_as_in_the_rfc(vector: dict[str, str]) -> None:
    ours = NodePrivate(bytes.fromhex(vector["private"]))
    theirs = bytes.fromhex(vector["other_public"])
    assert ours.public() == NodePublic(bytes.fromhex(vector["public"]))
    assert ours.exchange(theirs) == bytes.fromhex(vector["shared"])


@pytest.mark.parametrize("vector", VECTORS["scalar_multiplication"], ids=lambda vector: str(vector["source"]))
def test_clamping_at_creation_changes_no_result(vector: dict[str, str]) -> None:
    scalar, point = bytes.fromhex(vector["scalar"]), bytes.fromhex(vector["point"])
    for key in (NodePrivate(scalar), NodePrivate.from_entropy(scalar)):
        assert key.exchange(point) == bytes.fromhex(vector["result"])


@pytest.mark.parametrize("point", VECTORS["small_order"])
def test_a_public_key_of_small_order_is_refused(point: str) -> None:
    with pytest.raises(BadInput):
        MachinePrivate(SECRET).exchange(bytes.fromhex(point))


@given(st.binary(min_size=32, max_size=32))
def test_a_new_private_key_is_clamped(entropy: bytes) -> None:
    raw = NodePrivate.from_entropy(entropy).raw
    assert raw[0] & 7 == 0
    assert raw[31] & 0xC0 == 0x40
    assert raw[1:31] == entropy[1:31]


@pytest.mark.parametrize(("kind", "prefix"), PUBLIC.items())
def test_a_public_key_is_its_text(kind: type[PublicKey], prefix: str) -> None:
    key = kind(SECRET)
    assert str(key) == prefix + SECRET.hex()
    assert kind.parse(str(key)) == key
    assert kind.parse(prefix + SECRET.hex().upper()) == key
    assert repr(key) == f"{kind.__name__}([ZGVmZ])"
    assert not key.is_zero()
    assert kind.zero().is_zero()
    assert copy.copy(key) == key
    assert pickle.loads(pickle.dumps(key)) == key
    assert len({key, kind(SECRET), kind.zero()}) == 2


def test_a_key_of_one_kind_is_never_one_of_another() -> None:
    everything = [kind(SECRET) for kind in PUBLIC] + [kind(SECRET) for kind in PAIRS]
    for one in everything:
        assert [other for other in everything if other == one] == [one]
        assert one != SECRET
        assert one != str(one)


BAD = [
    "",
    "nodekey:",
    "nodekey:" + "00" * 31,
    "nodekey:" + "00" * 33,
    "nodekey:" + "0" * 63,
    "nodekey:" + "0g" * 32,
    "nodekey:" + "00 " * 21 + "0",  # bytes.fromhex would skip the spaces
    "nodekey:" + "00" * 31 + "\u0660\u0660",  # digits, but not of hex
    " nodekey:" + "00" * 32,
    "nodekey:" + "00" * 32 + "\n",
    "nodekey:nodekey:" + "00" * 28,
    "NODEKEY:" + "00" * 32,
    "mkey:" + "00" * 32,
    "privkey:" + "00" * 32,
    "00" * 32,
]


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_no_key(text: str) -> None:
    with pytest.raises(BadInput):
        NodePublic.parse(text)


@given(st.text(), st.sampled_from([*PUBLIC, *PAIRS]))
def test_every_text_is_a_key_or_bad_input(text: str, kind: type[PublicKey] | type[PrivateKey]) -> None:
    try:
        key = kind.parse(text)
    except BadInput:
        return
    again = key.serialize() if isinstance(key, PrivateKey) else str(key)
    assert again == text.lower()


@pytest.mark.parametrize("kind", [*PUBLIC, *PAIRS])
def test_errors_never_repeat_what_was_given(kind: type[PublicKey] | type[PrivateKey]) -> None:
    # Most likely a private key that somebody pasted into the wrong place.
    mistakes = ["privkey:" + SECRET.hex()[:-1], "privkey:" + SECRET.hex() + "z", SECRET.hex()[:-2] + "xy"]
    if kind is not DERPPublic and issubclass(kind, PublicKey):
        mistakes.append("privkey:" + SECRET.hex())
    for text in mistakes:
        with pytest.raises(BadInput) as refused:
            kind.parse(text)
        shown = (
            repr(refused.value)
            + refused.value.sentence()
            + refused.value.detail
            + str(refused.value.public())
        )
        assert SECRET.hex()[:16] not in shown
        assert refused.value.__cause__ is None
    with pytest.raises(BadInput):
        kind(SECRET[:-1])


@pytest.mark.parametrize(("kind", "public"), PAIRS.items())
def test_a_private_key_hides_itself(kind: type[PrivateKey], public: type[PublicKey]) -> None:
    key = kind(SECRET)
    for shown in (repr(key), str(key), f"{key}", f"{key!r:>40}", "%s" % key, repr([key]), repr({"k": key})):  # noqa: UP031 - one more way to print
        assert SECRET.hex()[:8] not in shown
        assert repr(SECRET)[2:10] not in shown
        assert "hidden" in shown
    assert key.serialize() == "privkey:" + SECRET.hex()
    assert kind.parse(key.serialize()) == key
    assert hash(kind.parse(key.serialize())) == hash(key)
    assert key != kind(bytes(32))
    assert type(key.public()) is public  # type: ignore[attr-defined]
    with pytest.raises(BadInput):
        kind.from_entropy(SECRET + b"x")
