"""The small conversations beside registration and map (protocol note control.md, sections 4, 7 and 9).

All are sent by the client inside Noise, except ``ServerKeys``, which is fetched before, and ``EarlyNoise``, which is
control's first word on a Noise connection. A ``NodeKey`` must belong to the connection's machine key.
"""

import msgspec

from doorward.protocol.keys import ChallengePublic, MachinePublic, NodePublic
from doorward.protocol.tailcfg.scalars import CapVer, Time


class ServerKeys(msgspec.Struct, frozen=True):
    """The answer to ``GET /key?v=N``. Both fields are sent always: the Rust client insists."""

    publicKey: MachinePublic  # control's Noise key
    legacyPublicKey: MachinePublic = MachinePublic.zero()  # zero: the ancient protocol is not spoken


class EarlyNoise(msgspec.Struct, frozen=True):
    """The early payload; optional."""

    nodeKeyChallenge: ChallengePublic  # new for each connection; no stock client uses it


class SetDNSRequest(msgspec.Struct, frozen=True):
    """``POST /machine/set-dns``: publish a DNS record, for a certificate. The answer is ``{}`` once it is served."""

    NodeKey: NodePublic  # who asks
    Name: str  # "_acme-challenge." and one of the node's CertDomains; nothing else is to be allowed
    Type: str  # "TXT"
    Value: str  # the challenge's digest
    Version: CapVer = 0  # the client's capability version


class TokenRequest(msgspec.Struct, frozen=True):
    """``POST /machine/id-token``: a signed statement of who the node is. The caller sees status and body as they are."""

    NodeKey: NodePublic  # who asks
    Audience: str  # the token's ``aud``
    CapVersion: CapVer = 0  # the client's capability version


class TokenResponse(msgspec.Struct, frozen=True):
    """The answer to a TokenRequest."""

    id_token: str  # a JWT; a secret of the node while it is valid

    def __repr__(self) -> str:
        return "TokenResponse(hidden)"


class QueryFeatureRequest(msgspec.Struct, frozen=True):
    """``POST /machine/feature/query``: may this node use a feature, and if not, what can the person do?"""

    NodeKey: NodePublic = NodePublic.zero()  # zero (absent): not said
    Feature: str = ""  # "serve" or "funnel"


class QueryFeatureResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a QueryFeatureRequest."""

    Complete: bool = False  # the feature is on already
    Text: str = ""  # shown to the person
    URL: str = ""  # shown to the person, to turn it on
    ShouldWait: bool = False  # the client waits for the capability to arrive in its netmap


class HealthChangeRequest(msgspec.Struct, frozen=True):
    """``POST /machine/update-health``, from clients before about 1.90. The answer is 204; a failure is only logged."""

    NodeKey: NodePublic  # who asks
    Subsys: str = ""  # which part of the client
    Error: str = ""  # what is wrong with it; "": nothing any more


class AuditLogRequest(msgspec.Struct, frozen=True):
    """``POST /machine/audit-log``: the client reports what its user did. Sent only under the always-on policy."""

    NodeKey: NodePublic = NodePublic.zero()  # who reports
    Version: CapVer = 0  # the client's capability version
    Action: str = ""  # "DISCONNECT_NODE"
    Details: str = ""  # the reason that the user gave
    Timestamp: Time | None = None  # the client's clock when it happened


class SetDeviceAttributesRequest(msgspec.Struct, frozen=True):
    """``PATCH /machine/set-device-attr``: attributes that the node states about itself."""

    NodeKey: NodePublic  # who asks
    Version: CapVer = 0  # the client's capability version
    # Name to new value; null deletes. Names keep their case.
    Update: dict[str, str | int | float | bool | None] = {}
