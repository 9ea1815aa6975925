"""Joining, leaving and changing keys (protocol note control.md, section 10)."""

from datetime import UTC, datetime

import msgspec

from doorward.protocol.keys import NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.scalars import ZERO_TIME, CapVer, Int, Time, known_time

# The expiry that a stock client sends to log out. Any expiry in the past means the same (section 10.1).
LOGOUT_EXPIRY = datetime(1970, 1, 1, 0, 2, 3, tzinfo=UTC)


class RegisterAuth(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the client proves who it is. Holds a secret: ``repr`` does not show it."""

    AuthKey: str = ""  # the key from `tailscale up --auth-key`; empty: none
    Oauth2Token: dict[str, str] | None = None  # only Android before 1.66, which is older than we serve

    def __repr__(self) -> str:
        return f"RegisterAuth(AuthKey={'hidden' if self.AuthKey else 'none'})"


class RegisterRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sent by the client at each start, login, key change and logout."""

    Version: CapVer  # the client's capability version, the same as in its Noise initiation
    NodeKey: NodePublic  # the key to be registered; zero is not acceptable
    OldNodeKey: NodePublic = NodePublic.zero()  # the key it replaces; zero: none
    NLKey: str = ""  # tailnet lock's key, always sent by stock clients; ignored here
    Auth: RegisterAuth | None = None  # None: none given, so a known key or an approval must do
    Expiry: Time | None = None  # wanted end of the key; None (zero time): no wish; in the past: logout
    # the AuthURL answered before: hold the answer until a person decided; "": first request
    Followup: str = ""
    Hostinfo: "Hostinfo | None" = None  # about the host; NetInfo and peerapi ports are usually not there yet
    Ephemeral: bool = False  # the node keeps no state: delete it soon after it goes offline
    NodeKeySignature: bytes | None = None  # tailnet lock only, null from everybody else; ignored here
    SignatureType: Int = 0  # machine certificates on Windows only; ignored here
    Timestamp: Time | None = None  # goes with SignatureType
    DeviceCert: bytes = b""  # goes with SignatureType
    Signature: bytes = b""  # goes with SignatureType
    Tailnet: str = ""  # "", a tailnet's name as a wish, or "required:<name>"

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "Expiry", known_time(self.Expiry))

    def is_logout(self, now: datetime) -> bool:
        """True when the client asks to be logged out, which is to be looked at before any auth key."""
        return self.Expiry is not None and self.Expiry <= now


class User(msgspec.Struct, frozen=True):
    """Who the node belongs to, for the client's list of profiles; the netmap's UserProfiles override it."""

    ID: int = 0  # the same id as in UserProfile
    DisplayName: str = ""  # overrides Login.DisplayName where not empty
    ProfilePicURL: str = ""  # overrides Login.ProfilePicURL where not empty
    Created: Time = ZERO_TIME  # zero: not said


class Login(msgspec.Struct, frozen=True):
    """The account with which the user signed in."""

    ID: int = 0  # unused by clients
    Provider: str = ""  # who vouches for the account; shown only
    LoginName: str = ""  # "alice@example.com"; shown in `tailscale switch --list`
    DisplayName: str = ""  # what people are shown
    ProfilePicURL: str = ""  # "": no picture


class RegisterResponse(msgspec.Struct, frozen=True):
    """Control's answer, at status 200 even for a refusal. All fields are always sent: some clients insist.

    The client looks at Error, then NodeKeyExpired, then AuthURL; with none of them it is logged in.
    """

    User: "User" = User()  # the owner; ID 0 while there is none
    Login: "Login" = Login()  # with what the owner signed in
    NodeKeyExpired: bool = False  # the client makes a new node key and registers again with OldNodeKey
    MachineAuthorized: bool = False  # informational for stock clients; false means "not registered" to others
    AuthURL: str = ""  # show this to a person, then ask again with Followup; "": none needed
    Error: str = ""  # final refusal, a sentence for the person at the client; "": none
