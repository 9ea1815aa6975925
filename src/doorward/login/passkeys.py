"""What a browser is asked for a passkey, and what its answer proves (WebAuthn level 3).

Pure but for the library: challenge in, verdict out. A passkey here is one that the authenticator itself can find (no user name
is typed) and that has seen its person: a finger, a face or a PIN, every time. It is bound to the name it was made on, so a page
elsewhere can have nothing signed for us.
"""

import base64
from typing import Any, NamedTuple

import msgspec

from doorward.errors import NotPermitted
from doorward.login.doors import Place
from doorward.model import Passkey, User

TIMEOUT = 300_000  # milliseconds; people look for their key
_LONGEST = 16_384  # characters of an answer; a large one has 3,000
_ALGORITHMS = (-8, -7, -257)  # EdDSA, ES256, RS256 (RFC 9053, RFC 8812)
_TRANSPORTS = frozenset(("usb", "nfc", "ble", "smart-card", "internal", "hybrid", "cable"))


class BadPasskey(NotPermitted):
    """The answer proves nothing."""

    problem = "bad-passkey"


class Made(NamedTuple):
    """A passkey that was just made."""

    credential: bytes
    public_key: bytes
    signatures: int  # so far, as the authenticator counts them
    transports: tuple[str, ...]


def asked_to_sign(place: Place, challenge: bytes, passkeys: tuple[Passkey, ...]) -> dict[str, Any]:
    """What ``navigator.credentials.get`` is given, as JSON (WebAuthn section 5.4). No passkeys: whichever the person has."""
    return {
        "challenge": _text(challenge),
        "timeout": TIMEOUT,
        "rpId": place.host,
        "userVerification": "required",
        "allowCredentials": _listed(passkeys, place),
    }


def asked_to_make(
    place: Place, challenge: bytes, user: User, tailnet: str, passkeys: tuple[Passkey, ...]
) -> dict[str, Any]:
    """What ``navigator.credentials.create`` is given, as JSON (WebAuthn section 5.4); ``passkeys`` are those there are."""
    return {
        "challenge": _text(challenge),
        "timeout": TIMEOUT,
        "rp": {"id": place.host, "name": tailnet},
        "user": {
            # Says nothing about the person to who reads it off an authenticator (section 14.6.1).
            "id": _text(b"doorward" + user.id.to_bytes(8)),
            "name": user.name,
            "displayName": user.display_name or user.name,
        },
        "pubKeyCredParams": [{"type": "public-key", "alg": each} for each in _ALGORITHMS],
        "authenticatorSelection": {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": "required",
        },
        "attestation": "none",
        "excludeCredentials": _listed(passkeys, place),
    }


def credential_of(answer: str) -> bytes:
    """Which passkey an answer is of. Raises BadPasskey."""
    try:
        return _bytes(_object(answer)["rawId"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadPasskey("this is not what a passkey answers", cure=_AGAIN) from None


def check_signature(answer: str, place: Place, challenge: bytes, passkey: Passkey) -> int:
    """Check that a passkey has signed the challenge at this place; how often it says that it has signed.

    Raises BadPasskey. It takes some milliseconds, and at the first time a third of a second: not for the event loop.
    """
    from webauthn import verify_authentication_response  # noqa: PLC0415 - the start of the server need not wait for it
    from webauthn.helpers.exceptions import WebAuthnException  # noqa: PLC0415 - see above

    if passkey.place != place.host:
        raise BadPasskey(
            f"this passkey belongs to {passkey.place}, not to {place.host}",
            cure=f"Open {passkey.place}, or make another passkey here.",
        )
    try:
        verified = verify_authentication_response(
            credential=_object(answer),
            expected_challenge=challenge,
            expected_rp_id=place.host,
            expected_origin=place.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.count,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _refused(error) from None
    return verified.new_sign_count


def check_made(answer: str, place: Place, challenge: bytes) -> Made:
    """Check that a passkey was made for the challenge at this place. Raises BadPasskey. Not for the event loop, as above."""
    from webauthn import verify_registration_response  # noqa: PLC0415 - the start of the server need not wait for it
    from webauthn.helpers.cose import COSEAlgorithmIdentifier  # noqa: PLC0415 - see above
    from webauthn.helpers.exceptions import WebAuthnException  # noqa: PLC0415 - see above

    try:
        found = _object(answer)
        verified = verify_registration_response(
            credential=found,
            expected_challenge=challenge,
            expected_rp_id=place.host,
            expected_origin=place.origin,
            require_user_verification=True,
            supported_pub_key_algs=[COSEAlgorithmIdentifier(each) for each in _ALGORITHMS],
        )
        said = found["response"].get("transports") or ()
        transports = tuple(sorted(each for each in said if each in _TRANSPORTS))
    except (WebAuthnException, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _refused(error) from None
    return Made(verified.credential_id, verified.credential_public_key, verified.sign_count, transports)


_AGAIN = "Try once more; if it stays so, load the page again."


def _object(answer: str) -> dict[str, Any]:
    if len(answer) > _LONGEST:
        raise ValueError("too long")
    return msgspec.json.decode(answer, type=dict[str, Any])


def _refused(error: Exception) -> BadPasskey:
    # What the library says names only what is public: origins, types, counts.
    return BadPasskey(
        "this passkey's answer does not hold", cure=_AGAIN, detail=f"{type(error).__name__}: {error}"
    )


def _listed(passkeys: tuple[Passkey, ...], place: Place) -> list[dict[str, Any]]:
    return [
        {"type": "public-key", "id": _text(one.credential), "transports": list(one.transports)}
        for one in passkeys
        if one.place == place.host
    ]


def _text(raw: bytes) -> str:
    """Base64url without padding, as all of WebAuthn's JSON has it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    if not text:
        raise ValueError("no credential")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
