"""What a node is told about who may ssh to it (protocol note ssh.md, section 1)."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType


class SSHPrincipal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a rule is about. Any set field that matches is a match; control sends one field a principal."""

    node: str | UnsetType = UNSET  # the source's StableID
    nodeIP: str | UnsetType = UNSET  # one Tailscale address of the source
    userLogin: str | UnsetType = UNSET  # LoginName of the owner; needs that user's profile in the netmap
    any: bool | UnsetType = UNSET  # whoever can reach port 22


class SSHRecorderFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the node does when no recorder takes the session."""

    RejectSessionWithMessage: str | UnsetType = UNSET  # refuse, and say this; absent: go on unrecorded
    # End a session whose recording breaks off, and say this.
    TerminateSessionWithMessage: str | UnsetType = UNSET
    NotifyURL: str | UnsetType = UNSET  # POSTed to over Noise; 201 expected


class SSHAction(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happens. The node tests ``accept`` first, then ``reject``, then ``holdAndDelegate``."""

    message: str | UnsetType = UNSET  # banner shown before the action takes effect
    reject: bool | UnsetType = UNSET  # the session ends
    accept: bool | UnsetType = UNSET  # the session begins
    sessionDuration: int | UnsetType = UNSET  # nanoseconds; bounds each session, not the connection
    allowAgentForwarding: bool | UnsetType = UNSET  # absent is no, here and below
    holdAndDelegate: str | UnsetType = UNSET  # URL the node asks over Noise, with $SRC_NODE_IP and so on
    allowLocalPortForwarding: bool | UnsetType = UNSET  # ssh -L
    allowRemotePortForwarding: bool | UnsetType = UNSET  # ssh -R
    recorders: list[str] | UnsetType = UNSET  # "ip:port", tried in order
    onRecordingFailure: SSHRecorderFailure | UnsetType = UNSET  # absent: sessions go on unrecorded


class SSHRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first rule that matches principal and user wins; no match denies."""

    principals: list[SSHPrincipal]  # any of them
    sshUsers: dict[str, str]  # requested name (or "*") to local account; "=" the same name, "" no match
    action: SSHAction  # what the rule does
    ruleExpires: datetime | UnsetType = UNSET  # skipped afterwards; no timer fires on the node
    acceptEnv: list[str] | UnsetType = UNSET  # patterns; inert without the node capability ssh-env-vars


class SSHPolicy(msgspec.Struct, frozen=True):
    """All rules of one destination. Always sent explicitly: absent means "keep", ``[]`` revokes."""

    rules: list[SSHRule]  # in order
