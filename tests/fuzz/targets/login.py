"""What a browser posts and says: forms, what a passkey answers, hosts, and where to go next."""

import json
from functools import partial

from starlette.requests import Request
from tests.fuzz.feeding import feed, text_of
from tests.support.authenticator import Authenticator

from doorward.login import asking, doors, passkeys
from doorward.login.asking import parse_form
from doorward.login.passkeys import BadPasskey
from doorward.model import Passkey, User
from doorward.store.columns import EPOCH
from doorward.tailnet import names

COVERS = (
    "login.asking:parse_form",
    "login.asking:recovery_digest",
    "login.passkeys:_bytes",
    "login.passkeys:_object",
    "tailnet.names:user_name",
)
LIMIT = 32_768  # the largest form
PLACE = doors.place_of("https://door.example.com")
DOORS = doors.Doors("https://door.example.com", 8080)
CHALLENGE = bytes(32)
_DEVICE = Authenticator()
_MADE = _DEVICE.make(
    passkeys.asked_to_make(PLACE, CHALLENGE, User(id=1, name="ann", created=EPOCH), "example", ()),
    PLACE.origin,
)
_FOUND = passkeys.check_made(_MADE, PLACE, CHALLENGE)
PASSKEY = Passkey(
    id=1,
    user_id=1,
    credential=_FOUND.credential,
    public_key=_FOUND.public_key,
    count=0,
    name="laptop",
    place=PLACE.host,
    created=EPOCH,
)
_SIGNED = _DEVICE.sign(passkeys.asked_to_sign(PLACE, CHALLENGE, (PASSKEY,)), PLACE.origin)
SEEDS = (
    _MADE.encode(),
    _SIGNED.encode(),
    json.dumps({"rawId": "AAAA", "id": "AAAA", "type": "public-key", "response": {}}).encode(),
    b"asking=1&answer=%7B%7D&name=a+b",
    b"/check/abc?refresh=no",
    b"door.example.com:443",
    b"ABCD-efgh ijkl",
)


def fuzz(data: bytes) -> None:
    """Nothing but a passkey is one, a form is a mapping, and no path leads elsewhere."""
    text = text_of(data)
    feed(data, parse_form)
    for check in (
        passkeys.credential_of,
        partial(passkeys.check_made, place=PLACE, challenge=CHALLENGE),
        partial(passkeys.check_signature, place=PLACE, challenge=CHALLENGE, passkey=PASSKEY),
    ):
        try:
            check(text)
        except BadPasskey:
            continue
    feed(text, names.user_name)
    path = doors.safe_path(text)
    assert path.startswith("/")
    assert path[1:2] not in {"/", "\\"}
    assert len(asking.recovery_digest(text)) == 32
    host = data[:300].replace(b"\n", b"").replace(b"\r", b"")
    place = DOORS.of(Request({"type": "http", "headers": [(b"host", host)]}))
    assert place is None or place in {DOORS.main, DOORS.local}
