"""The clients that tsidp keeps in ``oidc-funnel-clients.json``, read as apps of ours. Pure.

The file is one JSON object: by client id what is known of each, with its secret as text. Programs before the list of addresses wrote
one address and called the name ``name``. Whatever else stands there is of no use here: algorithm, grants and scopes are ours to say.
"""

import re
from typing import Annotated

import msgspec

from doorward.errors import BadInput
from doorward.login.apps import CLIENT, Moving, Wanted

LARGEST = 1 << 20  # bytes of a file
MOST = 1000  # clients in it
_TEXT = Annotated[str, msgspec.Meta(max_length=1000)]
# What goes into a URL and a header as it is. The first sign keeps it from being an option of a command.
_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,99}")
_SUBJECT = re.compile(
    r"[a-z2-7]{24}"
)  # how people are called: a token of an app never looks like one of a person
# tsidp's have 256 random bits. What somebody has made up could be guessed from its hash.
_SECRET = re.compile(r"[!-~]{32,500}")
_NO_NAME = re.compile(r"[^a-z0-9]+")
_LONGEST_NAME = 42
_CURE = "Give the oidc-funnel-clients.json of tsidp's state directory: one JSON object, from client ids to clients."


class _Client(msgspec.Struct, frozen=True):
    """One client, as tsidp writes it; Go writes null for what is not there."""

    client_id: _TEXT | None = None
    client_secret: _TEXT | None = None
    client_name: _TEXT | None = None
    name: _TEXT | None = None
    redirect_uris: list[_TEXT] | None = None
    redirect_uri: _TEXT | None = None
    token_endpoint_auth_method: _TEXT | None = None
    dynamically_registered: bool | None = None

    def __repr__(self) -> str:
        return f"_Client(client_id={self.client_id!r})"


def read_clients(text: str) -> list[Moving]:
    """The clients of a file, in its order; those that cannot be apps here with the reason. Raises BadInput for another file."""
    if len(text) > LARGEST:
        raise BadInput(f"the file has more than {LARGEST >> 20} MiB", cure=_CURE)
    try:
        listed = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        # Not what the reader said: it may quote the file, and there are secrets in it.
        raise BadInput("the file is no client file of tsidp", cure=_CURE) from None
    if len(listed) > MOST:
        raise BadInput(
            f"the file has {len(listed)} clients, and {MOST} are imported at most", cure="Split the file."
        )
    return [_read(client_id, raw) for client_id, raw in listed.items()]


def _read(client_id: str, raw: msgspec.Raw) -> Moving:
    try:
        said = msgspec.json.decode(raw, type=_Client)
    except msgspec.ValidationError as error:
        place = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else "all of it"
        return _refused(client_id, client_id, f"it is not what tsidp writes: see {place}")
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _refused(client_id, client_id, "it is not what tsidp writes")
    title = said.client_name or said.name or ""
    if not _CLIENT_ID.fullmatch(client_id) or _SUBJECT.fullmatch(client_id):
        why = "its client id is none that tsidp makes. Make it anew with `doorward apps create`."
        return _refused(client_id, title, why)
    if client_id.startswith(f"{CLIENT}-"):
        return _refused(client_id, title, f"client ids that begin with {CLIENT}- are doorward's own")
    if said.client_id not in {None, "", client_id}:
        return _refused(client_id, title, "it is listed under another client id than it has itself")
    secret = said.client_secret or ""
    public = not secret and said.token_endpoint_auth_method == "none"  # noqa: S105 - a method
    if not public and not _SECRET.fullmatch(secret):
        why = (
            "its secret is not one that tsidp makes" if secret else "it has no secret"
        ) + ". Make it anew with `doorward apps create`."
        return _refused(client_id, title, why)
    back = said.redirect_uris or ([said.redirect_uri] if said.redirect_uri else [])
    wanted = Wanted(
        name=_name(title) or f"tsidp-{client_id[:8].lower().replace('_', '-').rstrip('-')}",
        redirect_uris=tuple(dict.fromkeys(back)),
        public=public,
        # No administrator has looked at those.
        asks=bool(said.dynamically_registered),
    )
    return Moving(client_id, title, secret, wanted)


def _name(title: str) -> str:
    return _NO_NAME.sub("-", title.lower()).strip("-")[:_LONGEST_NAME].rstrip("-")


def _refused(client_id: str, title: str, why: str) -> Moving:
    return Moving(client_id[:100], title[:100], "", None, why)
