"""What an app says of itself, read and judged: RFC 7591 section 2, OpenID Connect Dynamic Client Registration section 2. Pure.

Anybody can write it, so all of it is checked as if an administrator had mistyped it, and what is for people to read is cut to
what fits a page. What is not known is left out, as section 2 has it; what is known and cannot be is an error, but for redirect
addresses: programs name all that any server might want, and get those that are possible here.
"""

import re
from typing import Any, Literal, NamedTuple

import msgspec

from doorward.errors import BadInput
from doorward.issuer.errors import OAuthError
from doorward.issuer.fetch import check_address
from doorward.login.apps import ALGORITHMS, MOST_ADDRESSES, check_logout_url, read_public_keys
from doorward.login.redirects import check_redirect, is_local, shown_host
from doorward.model import Brought

Method = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]

METHODS: tuple[Method, ...] = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
LARGEST = 16_384  # bytes
_LONGEST_TITLE = 60  # characters
_LONGEST_SOFTWARE = 100
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_CODE, _REFRESH = "authorization_code", "refresh_token"
# What would mean something to the app that we do not do: an app that got an id all the same would rely on it.
_NOT_HERE = (
    *("sector_identifier_uri", "userinfo_signed_response_alg", "id_token_encrypted_response_alg"),
    *("userinfo_encrypted_response_alg", "request_object_signing_alg", "tls_client_auth_subject_dn"),
)


class MetadataError(OAuthError):
    """What cannot be taken (RFC 7591 section 3.2.2). Its code is invalid_redirect_uri, invalid_client_metadata or another of these."""


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    redirect_uris: tuple[str, ...] = ()
    token_endpoint_auth_method: str | None = None
    grant_types: tuple[str, ...] = (_CODE,)
    response_types: tuple[str, ...] = ("code",)
    client_name: str = ""
    client_uri: str = ""
    policy_uri: str = ""
    tos_uri: str = ""
    jwks: dict[str, Any] | None = None
    jwks_uri: str = ""
    software_id: str = ""
    software_version: str = ""
    software_statement: str = ""
    application_type: str = ""
    subject_type: str = "public"
    initiate_login_uri: str = ""
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout_uri: str = ""
    backchannel_logout_session_required: bool = False
    require_pushed_authorization_requests: bool = False
    dpop_bound_access_tokens: bool = False
    id_token_signed_response_alg: str = "RS256"  # noqa: S105 - an algorithm


class Described(NamedTuple):
    """An app as it says it is."""

    redirect_uris: tuple[str, ...]
    title: str
    site: str
    policy: str
    terms: str
    method: Method
    keys: tuple[dict[str, Any], ...]
    keys_url: str
    refreshes: bool
    algorithm: str
    native: bool
    software: str
    login_uri: str
    pushed_only: bool
    dpop: bool
    signed_out_uris: tuple[str, ...]
    logout_url: str


def read(body: bytes, *, usual: Method) -> Described:
    """The description in a JSON object. Raises MetadataError.

    ``usual``: how the app shows who it is where it does not say.
    """
    try:
        said = msgspec.json.decode(body, type=dict[str, Any])
        found = msgspec.convert({key: value for key, value in said.items() if value is not None}, _Metadata)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _bad("this is no JSON object") from None
    _check_what_we_do(said, found)
    method = _method(found, usual)
    keys, keys_url = _keys(found, method)
    redirects = _redirects(found, method)
    return Described(
        redirect_uris=redirects,
        title=_line(found.client_name, _LONGEST_TITLE) or shown_host(redirects[0]),
        site=_page(found.client_uri),
        policy=_page(found.policy_uri),
        terms=_page(found.tos_uri),
        method=method,
        keys=keys,
        keys_url=keys_url,
        refreshes=_REFRESH in found.grant_types,
        algorithm=found.id_token_signed_response_alg,
        native=found.application_type == "native" or all(is_local(one) for one in redirects),
        software=_line(f"{found.software_id} {found.software_version}", _LONGEST_SOFTWARE),
        login_uri=found.initiate_login_uri,
        pushed_only=found.require_pushed_authorization_requests,
        dpop=found.dpop_bound_access_tokens,
        signed_out_uris=_signed_out(found, method, redirects),
        logout_url=_logout_url(found, redirects),
    )


def fields_of(said: Described, before: Brought) -> dict[str, Any]:
    """The fields of an App that are its own word; ``before``: what is not, or was its word until now."""
    return {
        "redirect_uris": said.redirect_uris,
        "keys": said.keys,
        "keys_url": said.keys_url,
        "algorithm": said.algorithm,
        "pushed_only": said.pushed_only,
        "dpop": said.dpop,
        "signed_out_uris": said.signed_out_uris,
        "logout_url": said.logout_url,
        "brought": msgspec.structs.replace(
            before,
            title=said.title,
            site=said.site,
            policy=said.policy,
            terms=said.terms,
            refreshes=said.refreshes,
            software=said.software,
            login_uri=said.login_uri,
            method=said.method,
            native=said.native,
        ),
    }


def _check_what_we_do(said: dict[str, Any], found: _Metadata) -> None:
    if found.software_statement:
        raise MetadataError("unapproved_software_statement", "no software statements are taken here")
    if _CODE not in found.grant_types or "code" not in found.response_types:
        raise _bad("only apps that use authorization_code, with the response type code, come by themselves")
    if found.subject_type != "public":
        raise _bad("subject_type is public: sub is the same for all apps")
    if found.id_token_signed_response_alg not in ALGORITHMS:
        raise _bad(f"id_token_signed_response_alg is one of {', '.join(ALGORITHMS)}")
    if found.application_type not in {"", "web", "native"}:
        raise _bad("application_type is web or native")
    if found.initiate_login_uri and not _page(found.initiate_login_uri):
        raise _bad("initiate_login_uri is an https address")
    for name in _NOT_HERE:
        if said.get(name):
            raise _bad(f"{name} is not possible here")


def _method(found: _Metadata, usual: Method) -> Method:
    method = found.token_endpoint_auth_method or usual
    for one in METHODS:
        if one == method:
            return one
    raise _bad(f"token_endpoint_auth_method is one of {', '.join(METHODS)}")


def _keys(found: _Metadata, method: Method) -> tuple[tuple[dict[str, Any], ...], str]:
    if found.jwks is not None and found.jwks_uri:
        raise _bad("jwks and jwks_uri are not given both")
    if method != "private_key_jwt":
        return (), ""  # it may have keys for what we do not do
    if found.jwks is None and not found.jwks_uri:
        raise _bad("an app that signs says with which keys: jwks or jwks_uri")
    try:
        if found.jwks is not None:
            return read_public_keys(msgspec.json.encode(found.jwks).decode()), ""
        check_address(found.jwks_uri)
    except BadInput as error:
        raise _bad(error.message) from None
    return (), found.jwks_uri


def _redirects(found: _Metadata, method: Method) -> tuple[str, ...]:
    """Those that are possible."""
    if len(found.redirect_uris) > MOST_ADDRESSES:
        raise MetadataError("invalid_redirect_uri", f"an app has {MOST_ADDRESSES} redirect addresses at most")
    own_schemes = _own_schemes(found, method)
    good, why = [], "an app that signs people in has redirect_uris"
    for uri in dict.fromkeys(found.redirect_uris):
        try:
            check_redirect(uri, public=own_schemes)
        except BadInput as error:
            why = error.message
        else:
            good.append(uri)
    if not good:
        raise MetadataError("invalid_redirect_uri", why)
    return tuple(good)


def _own_schemes(found: _Metadata, method: Method) -> bool:
    return method == "none" and found.application_type != "web"


def _signed_out(found: _Metadata, method: Method, redirects: tuple[str, ...]) -> tuple[str, ...]:
    """Of ``post_logout_redirect_uris`` (RP-Initiated Logout section 3.1) those at hosts that people are sent back to anyway.

    Whatever was said or approved of the app's hosts then holds for these, too.
    """
    if len(found.post_logout_redirect_uris) > MOST_ADDRESSES:
        raise _bad(f"an app has {MOST_ADDRESSES} post_logout_redirect_uris at most")
    hosts = set(map(shown_host, redirects))
    good = []
    for uri in dict.fromkeys(found.post_logout_redirect_uris):
        try:
            check_redirect(uri, public=_own_schemes(found, method))
        except BadInput:
            continue
        if shown_host(uri) in hosts:
            good.append(uri)
    return tuple(good)


def _logout_url(found: _Metadata, redirects: tuple[str, ...]) -> str:
    """``backchannel_logout_uri`` (Back-Channel Logout section 2.2). What we send always has both ``sub`` and ``sid``."""
    url = found.backchannel_logout_uri
    try:
        if url:
            check_address(url)
            check_logout_url(url, redirects)
    except BadInput as error:
        raise _bad(error.message) from None
    return url


def _line(text: str, longest: int) -> str:
    """Words for people, without what could turn a line around or break it."""
    return " ".join(_UNSEEN.sub(" ", text).split())[:longest].strip()


def _page(url: str) -> str:
    """An address that people may follow; empty for any that is none."""
    try:
        check_address(url)
    except BadInput:
        return ""
    return url


def _bad(why: str) -> MetadataError:
    return MetadataError("invalid_client_metadata", why)
