"""The nouns are values: frozen, compared by content; and what the store keeps as JSON comes back the same."""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.support import nouns

from doorward import model
from doorward.model import (
    Attribute,
    AuditEvent,
    Change,
    ChangeKind,
    Check,
    Observed,
    PolicyEntry,
    PolicyVersion,
    Process,
    Role,
)
from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo

MAKERS: dict[str, Callable[[], msgspec.Struct]] = {
    "User": lambda: nouns.user(1),
    "Node": lambda: nouns.node(1, 1),
    "AuthKey": lambda: nouns.auth_key(1),
    "ApiToken": lambda: nouns.api_token(1),
    "Registration": lambda: nouns.registration(1),
    "Observed": Observed,
    "Attribute": lambda: Attribute(key="custom:tier", value="prod"),
    "AuditEvent": lambda: AuditEvent(
        seq=1, at=nouns.NOW, actor="cli", action="a.b", target="policy", details={}, previous=b"", digest=b""
    ),
    "TabTarget": lambda: model.TabTarget(node_id=1, account="root", ssh=True),
    "Tab": nouns.tab,
    "TabEnd": lambda: model.TabEnd(
        id=1, user_id=1, session_id=1, over=model.TabOver.LEFT, reason="its page was closed", at=nouns.NOW
    ),
    "HostKey": lambda: model.HostKey(
        id=1, node_id=1, user_id=None, key="ssh-ed25519 AAAA", actor="cli", created=nouns.NOW
    ),
    "Process": lambda: Process(
        id=1, installation="i", boot=1, label="here", noise_key=nouns.machine_key(1), door_port=8443
    ),
    "Passkey": lambda: model.Passkey(
        id=1,
        user_id=1,
        credential=b"c",
        public_key=b"k",
        count=0,
        name="laptop",
        place="door.example.com",
        created=nouns.NOW,
    ),
    "Provider": lambda: model.Provider(
        id=1, name="corp", issuer="https://id.example.com", client_id="doorward", created=nouns.NOW
    ),
    "Identity": lambda: model.Identity(id=1, provider_id=1, subject="s1", user_id=1, created=nouns.NOW),
    "Claims": lambda: model.Claims(issuer="https://id.example.com", subject="s1"),
    "Session": nouns.session,
    "Invitation": lambda: model.Invitation(
        id=1, user_id=1, secret_hash=b"", actor="cli", created=nouns.NOW, expires=nouns.SOON
    ),
    "Asking": lambda: model.Asking(
        id=1,
        secret_hash=b"",
        act="signin",
        argument="{}",
        user_id=None,
        origin="https://door.example.com",
        challenge=b"",
        created=nouns.NOW,
        expires=nouns.SOON,
    ),
    "App": lambda: model.App(id=1, name="wiki", client_id="app-1", actor="cli", created=nouns.NOW),
    "AppInvitation": lambda: model.AppInvitation(
        id=1, secret_hash=b"h", uses=1, actor="cli", created=nouns.NOW, expires=nouns.SOON
    ),
    "Brought": lambda: model.Brought(title="A tool"),
    "SigningKey": lambda: model.SigningKey(
        id=1,
        algorithm="ES256",
        generation=1,
        kid="k",
        public={},
        sealed=b"",
        created=nouns.NOW,
        starts=nouns.NOW,
    ),
    "AppSession": lambda: model.AppSession(
        id=1, key="node:1:1", sid="s", user_id=1, created=nouns.NOW, seen=nouns.NOW, acted=nouns.NOW
    ),
    "AppGrant": lambda: model.AppGrant(
        id=1,
        app_id=1,
        user_id=1,
        node_id=None,
        sid="s",
        code_hash=b"",
        redirect_uri="https://wiki.example.com/back",
        challenge="",
        nonce="",
        scopes=("openid",),
        resources=(),
        auth_time=nouns.NOW,
        acr="",
        amr=(),
        created=nouns.NOW,
        code_expires=nouns.SOON,
        expires=nouns.SOON,
    ),
    "RefreshToken": lambda: model.RefreshToken(
        id=1, grant_id=1, secret_hash=b"", created=nouns.NOW, expires=nouns.SOON
    ),
    "PushedRequest": lambda: model.PushedRequest(
        id=1, app_id=1, secret_hash=b"", pairs=(("scope", "openid"),), expires=nouns.SOON
    ),
    "DeviceRequest": lambda: model.DeviceRequest(
        id=1,
        app_id=1,
        device_hash=b"",
        user_hash=b"",
        scopes=(),
        resources=(),
        levels=(),
        address="",
        node_id=None,
        created=nouns.NOW,
        expires=nouns.SOON,
    ),
    "LogoutNotice": lambda: model.LogoutNotice(
        id=1,
        app="wiki",
        client_id="app-1",
        algorithm="RS256",
        url="https://wiki.example.com/logout",
        user_id=1,
        sid="s",
        created=nouns.NOW,
        due=nouns.NOW,
    ),
    "AccessToken": lambda: model.AccessToken(
        id=1, secret_hash=b"", grant_id=None, claims={}, expires=nouns.SOON
    ),
    "UsedId": lambda: model.UsedId(id=1, digest=b"", expires=nouns.SOON),
    "Consent": lambda: model.Consent(
        id=1,
        app_id=1,
        user_id=1,
        node_id=None,
        host="wiki.example.com",
        scopes=(),
        resources=(),
        expires=nouns.SOON,
    ),
    "Cut": lambda: model.Cut(id=1, first=1, second=2, created=nouns.NOW, created_by="cli"),
    "Change": lambda: Change(id=1, boot=1, kind=ChangeKind.NODES, ids=(1,)),
    "Check": lambda: Check(
        id=1,
        link="l",
        code="ABC-DEF",
        source_id=1,
        target_id=2,
        user_id=None,
        ssh_user="root",
        account="root",
        rule="ssh[0]",
        rule_digest="",
        period=0,
        created=nouns.NOW,
        expires=nouns.SOON,
    ),
    "PolicyVersion": lambda: PolicyVersion(id=1, text="{}", actor="cli", created=nouns.NOW),
    "PolicyEntry": lambda: PolicyEntry(
        id=1, actor="cli", created=nouns.NOW, comment="", added=1, removed=0, size=2
    ),
}


def test_every_noun_is_looked_at() -> None:
    here = {
        name
        for name, kind in inspect.getmembers(model, inspect.isclass)
        if issubclass(kind, msgspec.Struct) and kind.__module__.startswith(f"{model.__name__}.")
    }
    assert here == set(MAKERS)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_noun_is_a_value(make: Callable[[], msgspec.Struct]) -> None:
    one, same = make(), make()
    assert one == same
    for name in one.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(one, name, None)
    kind: Any = type(one)
    with pytest.raises(TypeError):
        kind(*msgspec.structs.astuple(one))  # by keyword only: the order means nothing


@pytest.mark.parametrize("kind", [model.AuthKey, model.ApiToken])
def test_of_a_secret_only_the_hash_is_kept(kind: type[msgspec.Struct]) -> None:
    assert {name for name in kind.__struct_fields__ if "secret" in name} == {"secret_hash"}


def test_a_key_ends_at_its_moment_and_not_before() -> None:
    node = nouns.node(1, 1, key_expiry=nouns.SOON)
    assert not node.expired(nouns.SOON - timedelta(microseconds=1))
    assert node.expired(nouns.SOON)
    assert not nouns.node(1, 1).expired(nouns.SOON + timedelta(days=10_000))


def test_addresses_are_ipv4_first() -> None:
    node = nouns.node(7, 1)
    assert node.addresses == (node.ipv4, node.ipv6)
    assert [address.version for address in node.addresses] == [4, 6]


def test_roles_are_the_words_of_the_command_line() -> None:
    assert [str(role) for role in Role] == [
        "owner",
        "admin",
        "network-admin",
        "it-admin",
        "billing-admin",
        "auditor",
        "member",
    ]
    assert {Role(str(role)) for role in Role} == set(Role)


def test_made_up_owners_are_out_of_the_way_of_real_ones() -> None:
    # Clients keep user ids in 63 bits, some scripts in 31.
    ids = {model.TAGGED_DEVICES_USER_ID, model.DOORWARD_USER_ID}
    assert len(ids) == 2
    assert all(2**31 - 2_000_000 < number < 2**31 for number in ids)


def test_what_a_host_says_of_itself_comes_back_from_json_as_it_was() -> None:
    hostinfo = Hostinfo(
        Hostname="laptop",
        OS="linux",
        sshHostKeys=["ssh-ed25519 AAAA"],
        RoutableIPs=["10.0.0.0/8"],
        NetInfo=NetInfo(PreferredDERP=900),
    )
    assert decode_request(encode(hostinfo), Hostinfo) == hostinfo
