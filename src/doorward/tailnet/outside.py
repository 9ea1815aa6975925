"""Outside OpenID providers, and who their subjects are here.

A person is known by provider and subject, and by nothing else: addresses and names change hands. What a provider says is
taken no further than its administrator here said: an address counts where the provider vouches for it *and* its domain, or
the address itself, was named for that provider. An address that is nobody's word names nobody, links nobody, lets nobody in.

::

    claims ──▶ the subject is known ──────────────────────────────▶ that person, refreshed
         └───▶ it is not: the provider's rules let it in ──▶ a new person, unless the name is somebody's
                                            └──▶ refused, and on record
"""

import re
import shlex
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from doorward.errors import BadInput, Conflict, NotFound, NotPermitted
from doorward.model import Claims, Identity, Provider, User
from doorward.store import Connection, audit, signin, users
from doorward.tailnet.writer import Effect, Writer

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_DOMAIN = re.compile(r"(?=.{1,190}\Z)[a-z0-9-]+(\.[a-z0-9-]+)+")
_EMAIL = re.compile(r"[a-z0-9][a-z0-9._+-]{0,62}@[a-z0-9][a-z0-9.-]{0,190}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")  # RFC 6749, section 3.3
_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_MOST = 1000  # entries of one list
_LONG = 2000  # characters of anything
CHANGEABLE = frozenset(("client_id", "client_secret", "scopes", "domains", "users", "groups", "groups_claim"))


def group_domains(provider: Provider) -> tuple[str, ...]:
    """What the names of a provider's groups end in, in the policy: its domains, or else its issuer's host."""
    return provider.domains or (urlsplit(provider.issuer).hostname or provider.name,)


def check_provider(provider: Provider) -> Provider:
    """The provider, tidied. Raises BadInput for what cannot be used, with ``place`` the field's name."""
    if not _NAME.fullmatch(provider.name):
        _bad(
            "name",
            f"{provider.name!r} cannot be a provider's name",
            "Use lower-case letters, digits and '-'.",
        )
    try:
        issuer = urlsplit(provider.issuer)
        secure = issuer.scheme == "https" or (issuer.scheme == "http" and issuer.hostname in _LOOPBACK)
        plain = issuer.hostname and issuer.username is None and not issuer.query and not issuer.fragment
    except ValueError:
        secure = plain = False
    if not secure or not plain or len(provider.issuer) > _LONG or not provider.issuer.isprintable():
        _bad(
            "issuer",
            "the issuer is no https address without a question mark",
            "Give it exactly as the provider does: https://accounts.example.com, for example.",
        )
    for name in ("client_id", "groups_claim"):
        text = getattr(provider, name)
        if len(text) > _LONG or not text.isprintable() or not text.strip():
            _bad(name, f"{name} is empty, too long or no text", "Copy it from the provider once more.")
    domains = _listed("domains", provider.domains, _DOMAIN, "a domain", "Write it like example.com.")
    addresses = _listed(
        "users", provider.users, _EMAIL, "an e-mail address", "Write it like ann@example.com."
    )
    for scope in provider.scopes:
        if not _SCOPE.fullmatch(scope):
            _bad("scopes", f"{scope!r} is no scope", "Give the scopes one by one.")
    for group in provider.groups:
        if not group.strip() or len(group) > 200 or not group.isprintable():
            _bad("groups", f"{group!r} cannot be a group", "Write it exactly as the provider sends it.")
    if max(len(provider.scopes), len(provider.groups)) > _MOST:
        _bad("groups", f"more than {_MOST} entries", "Name groups rather than people.")
    return msgspec.structs.replace(
        provider,
        scopes=tuple(dict.fromkeys(("openid", *provider.scopes))),
        domains=domains,
        users=addresses,
        groups=tuple(sorted(set(provider.groups))),
    )


def _listed(
    place: str, texts: Iterable[str], pattern: re.Pattern[str], what: str, cure: str
) -> tuple[str, ...]:
    found = sorted({text.strip().lower().removeprefix("@") for text in texts})
    for text in found:
        if not pattern.fullmatch(text):
            _bad(place, f"{text!r} is not {what}", cure)
    if len(found) > _MOST:
        _bad(place, f"more than {_MOST} entries", "Name groups rather than people.")
    return tuple(found)


def _bad(place: str, message: str, cure: str) -> None:
    raise BadInput(message, cure=cure, place=f"$.{place}")


class Outside:
    """The outside providers of a tailnet, and who signs in by them."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def providers(self) -> list[Provider]:
        """All of them, oldest first."""
        return await self._writer.database.read(signin.all_providers)

    async def provider(self, name: str) -> Provider:
        """The one with this name. Raises NotFound."""
        found = await self._writer.database.read(signin.provider_by_name, name)
        if found is None:
            raise NotFound(f"there is no provider {name!r}", cure="`doorward providers list` shows them.")
        return found

    async def add(self, actor: str, draft: Provider) -> Provider:
        """Let people sign in at another provider. Raises BadInput, and Conflict for a name that is taken."""
        now = self._writer.now()
        good = check_provider(msgspec.structs.replace(draft, id=0, created=now))
        return await self._writer.apply(_add, actor, good, now)

    async def change(self, actor: str, name: str, changes: dict[str, Any]) -> Provider:
        """Change some of CHANGEABLE. Never the issuer: its subjects would be taken for those of the one before."""
        if unknown := changes.keys() - CHANGEABLE:
            raise BadInput(f"{min(unknown)} of a provider stays as it is", cure="Add another provider.")
        return await self._writer.apply(
            _change, actor, (await self.provider(name)).id, changes, self._writer.now()
        )

    async def remove(self, actor: str, name: str) -> int:
        """Forget a provider, who its subjects are, and the sessions begun by it; how many subjects those were."""
        return await self._writer.apply(_remove, actor, (await self.provider(name)).id, self._writer.now())

    async def signed_in(self, provider: Provider, claims: Claims, *, admit: bool = True) -> User:
        """Who has just signed in, with profile and groups as the provider has them now.

        A subject that is nobody yet becomes a new person where the provider's rules say so, and ``admit``. Raises
        NotPermitted or Conflict, each with its cure; refusals are on record.
        """
        now = self._writer.now()
        try:
            return await self._writer.apply(_sign_in, provider.id, claims, now, admit)
        except (NotPermitted, Conflict) as error:
            await self._writer.apply(_refused, provider, claims, error.message, now)
            raise

    async def link(self, actor: str, user_name: str, provider_name: str, subject: str) -> Identity:
        """An administrator says who a subject is. Raises NotFound, BadInput, and Conflict when it is somebody else."""
        if not subject.isascii() or not subject.isprintable() or not 0 < len(subject) <= 255:
            raise BadInput(
                "this is no subject of a provider",
                cure='It is what the provider calls "sub": at most 255 plain characters.',
            )
        provider = await self.provider(provider_name)
        draft = Identity(
            id=0, provider_id=provider.id, subject=subject, user_id=0, created=self._writer.now()
        )
        return await self._writer.apply(_link, actor, user_name, draft)

    async def link_identity(self, actor: str, user_name: str, provider: Provider, claims: Claims) -> User:
        """Somebody who is known here has signed in at a provider, too: from now on either will do.

        Raises Conflict when that subject is another person, and NotPermitted for the suspended.
        """
        now = self._writer.now()
        draft = Identity(id=0, provider_id=provider.id, subject=claims.subject, user_id=0, created=now)
        return await self._writer.apply(_link_and_sign_in, actor, user_name, draft, claims, now)

    async def unlink(self, actor: str, user_name: str, provider_name: str) -> int:
        """A provider's subjects are not this person any more; how many they were. Their sessions begun by it end."""
        provider = await self.provider(provider_name)
        return await self._writer.apply(_unlink, actor, user_name, provider.id, self._writer.now())

    async def identities(self, user: User) -> list[Identity]:
        """By which subjects of which providers a person may sign in."""
        return await self._writer.database.read(signin.identities_of, user.id)


# The transactions behind it


def _shown(provider: Provider) -> dict[str, Any]:
    """A provider for the audit log, which never has the secret."""
    shown = msgspec.to_builtins(provider)
    for name in ("id", "name", "created", "client_secret"):
        shown.pop(name)
    return {**shown, "client_secret": "set" if provider.client_secret else "none"}


def _known(connection: Connection, provider_id: int) -> Provider:
    found = signin.provider_by_id(connection, provider_id)
    if found is None:
        raise NotFound("this provider was removed", cure="`doorward providers list` shows those there are.")
    return found


def _person(connection: Connection, name: str) -> User:
    found = users.by_name(connection, name.strip().lower())
    if found is None:
        raise NotFound(
            f"there is no user {name!r}", cure="`doorward users list` shows them; `users create` adds one."
        )
    return found


def _everybody(connection: Connection) -> tuple[User, ...]:
    return tuple(users.load_all(connection))


def _add(connection: Connection, actor: str, draft: Provider, now: datetime) -> Effect[Provider]:
    if signin.provider_by_name(connection, draft.name) is not None:
        raise Conflict(
            f"there is a provider {draft.name!r} already",
            cure="Choose another name, or change that one: `doorward providers change`.",
        )
    made = signin.insert_provider(connection, draft)
    audit.append(connection, actor, "provider.add", f"provider:{made.name}", _shown(made), now)
    return Effect(result=made)


def _change(
    connection: Connection, actor: str, provider_id: int, changes: dict[str, Any], now: datetime
) -> Effect[Provider]:
    before = _known(connection, provider_id)
    after = check_provider(msgspec.structs.replace(before, **changes))
    if after == before:
        return Effect(result=before)
    signin.update_provider(connection, after)
    old, new = _shown(before), _shown(after)
    details: dict[str, Any] = {name: new[name] for name in new if old[name] != new[name]}
    details["before"] = {name: old[name] for name in details}
    if after.client_secret != before.client_secret:
        details["client_secret"] = "changed"  # noqa: S105 - a word for the log, no secret
    audit.append(connection, actor, "provider.change", f"provider:{after.name}", details, now)
    touched = {one.user_id for one in signin.identities_at(connection, provider_id)}
    return Effect(result=after, users=_regroup(connection, touched))


def _remove(connection: Connection, actor: str, provider_id: int, now: datetime) -> Effect[int]:
    provider = _known(connection, provider_id)
    touched = {one.user_id for one in signin.identities_at(connection, provider_id)}
    linked = signin.delete_provider(connection, provider_id)
    ended = signin.end_sessions(connection, now, method=f"provider:{provider.name}")
    details = {"identities": linked, "sessions": ended}
    audit.append(connection, actor, "provider.remove", f"provider:{provider.name}", details, now)
    return Effect(result=linked, users=_regroup(connection, touched))


def _regroup(connection: Connection, user_ids: Iterable[int]) -> tuple[User, ...] | None:
    """Work out anew in which groups people are; everybody when that changed anything, else None."""
    changed = False
    for user_id in user_ids:
        user = users.by_id(connection, user_id)
        if user is not None and (groups := _groups_of(connection, user_id)) != user.groups:
            users.update(connection, msgspec.structs.replace(user, groups=groups))
            changed = True
    return _everybody(connection) if changed else None


def _groups_of(connection: Connection, user_id: int) -> tuple[str, ...]:
    """What all providers together say, as the policy names it."""
    found: set[str] = set()
    for one in signin.identities_of(connection, user_id):
        provider = signin.provider_by_id(connection, one.provider_id)
        assert provider is not None, "an identity has a provider: a foreign key says so"
        for domain in group_domains(provider):
            found |= {
                f"{group[: -len(domain) - 1] if group.lower().endswith(f'@{domain}') else group}@{domain}"
                for group in one.groups
            }
    return tuple(sorted(found))


def _sign_in(
    connection: Connection, provider_id: int, claims: Claims, now: datetime, admit: bool
) -> Effect[User]:
    provider = _known(connection, provider_id)
    assert claims.issuer == provider.issuer, "claims are checked against the issuer they are to be from"
    known = signin.identity(connection, provider.id, claims.subject)
    if known is not None:
        return _refresh(connection, provider, known, claims, now)
    if not admit:
        raise NotPermitted(
            f"{provider.name} says who you are there, and that is nobody here",
            cure="Sign in the way that you signed in before.",
        )
    name = _newcomer(connection, provider, claims)
    draft = User(id=0, name=name, created=now)
    user = users.insert(connection, draft)
    actor = f"provider:{provider.name}"
    details = {"role": user.role.value, "email": claims.email, "subject": claims.subject}
    audit.append(connection, actor, "user.create", f"user:{name}", details, now)
    identity = signin.insert_identity(
        connection,
        Identity(id=0, provider_id=provider.id, subject=claims.subject, user_id=user.id, created=now),
    )
    effect = _refresh(connection, provider, identity, claims, now)
    return Effect(result=effect.result, users=_everybody(connection))


def _vouched(provider: Provider, claims: Claims) -> bool:
    """True where the provider vouches for the address, and may do so here."""
    domain = claims.email.rpartition("@")[2]
    return claims.email_verified and (domain in provider.domains or claims.email in provider.users)


def _newcomer(connection: Connection, provider: Provider, claims: Claims) -> str:
    """The name of a new person. Raises NotPermitted where the rules let nobody like them in, Conflict for a name of another."""
    vouched = _vouched(provider, claims) and bool(_EMAIL.fullmatch(claims.email))
    if not vouched and set(provider.groups).isdisjoint(claims.groups):
        unsure = bool(claims.email) and not claims.email_verified
        why = f"; it does not vouch for the address {claims.email}" if unsure else ""
        raise NotPermitted(
            f"{provider.name} says who you are there, and you are nobody here{why}",
            cure=f"Ask an administrator to invite you, or to link you: {_link_line('NAME', provider, claims)}",
        )
    # Without a domain behind it that anybody is known by: a name of their own choice must not be somebody's address.
    name = claims.email if vouched else f"{_local_part(claims)}@{provider.name}"
    others = [user for user in users.load_all(connection) if name in {user.name, user.email.lower()}]
    if others:
        raise Conflict(
            f"there is a person {others[0].name} here already, whom {provider.name} is not known for",
            cure=f"Sign in as {others[0].name} the other way and add {provider.name} there, or ask an administrator to link "
            f"you: {_link_line(others[0].name, provider, claims)}",
        )
    return name


def _link_line(name: str, provider: Provider, claims: Claims) -> str:
    return f"`doorward users link {name} {provider.name} {shlex.quote(claims.subject)}`"


def _local_part(claims: Claims) -> str:
    """A login name out of what they like to be called, or else of the subject."""
    for text in (claims.preferred_username.partition("@")[0], claims.subject):
        cleaned = re.sub(r"[^a-z0-9._+-]+", "-", text.lower()).strip("-._+")[:60]
        if cleaned:
            return cleaned
    raise NotPermitted(
        "there is nothing that you could be called here", cure="Ask an administrator to invite you."
    )


def _refresh(
    connection: Connection, provider: Provider, known: Identity, claims: Claims, now: datetime
) -> Effect[User]:
    """Take over what a provider says now about a person. Raises NotPermitted for the suspended."""
    user = users.by_id(connection, known.user_id)
    assert user is not None, "an identity has a person: a foreign key says so"
    if user.suspended:
        raise NotPermitted(f"{user.name} is suspended", cure="An administrator can say why, and restore you.")
    signin.update_identity(
        connection, msgspec.structs.replace(known, email=claims.email, groups=claims.groups, used=now)
    )
    changes: dict[str, Any] = {}
    if claims.name and claims.name != user.display_name:
        changes["display_name"] = claims.name
    if claims.email != user.email and _may_have(connection, provider, user, known, claims):
        changes["email"] = claims.email
    if (groups := _groups_of(connection, user.id)) != user.groups:
        changes["groups"] = groups
    if not changes:
        return Effect(result=user)
    changed = users.update(connection, msgspec.structs.replace(user, **changes))
    details = {**changes, "before": {name: getattr(user, name) for name in changes}}
    audit.append(connection, f"provider:{provider.name}", "user.update", f"user:{user.name}", details, now)
    return Effect(result=changed, users=_everybody(connection))


def _may_have(
    connection: Connection, provider: Provider, user: User, known: Identity, claims: Claims
) -> bool:
    """True where a vouched-for address may become the person's own, by which the policy knows them.

    One that an administrator or another provider gave stays, and one that is somebody else's never comes to be shared: the
    policy would then name neither.
    """
    if not _vouched(provider, claims) or user.email.lower() not in {"", known.email}:
        return False
    others = (one for one in users.load_all(connection) if one.id != user.id)
    return all(claims.email not in {one.name, one.email.lower()} for one in others)


def _refused(
    connection: Connection, provider: Provider, claims: Claims, why: str, now: datetime
) -> Effect[None]:
    target = f"provider:{provider.name}"
    details = {"subject": claims.subject, "email": claims.email, "why": why}
    audit.append(connection, target, "signin.refuse", target, details, now)
    return Effect(result=None)


def _linked(connection: Connection, actor: str, user: User, draft: Identity) -> Identity:
    provider = _known(connection, draft.provider_id)
    known = signin.identity(connection, provider.id, draft.subject)
    if known is not None:
        if known.user_id == user.id:
            return known
        other = users.by_id(connection, known.user_id)
        assert other is not None, "an identity has a person: a foreign key says so"
        raise Conflict(
            f"this subject of {provider.name} is {other.name} already",
            cure=f"An administrator unlinks it first: `doorward users unlink {other.name} {provider.name}`.",
        )
    made = signin.insert_identity(connection, msgspec.structs.replace(draft, user_id=user.id))
    details = {"provider": provider.name, "subject": draft.subject}
    audit.append(connection, actor, "user.link", f"user:{user.name}", details, draft.created)
    return made


def _link(connection: Connection, actor: str, user_name: str, draft: Identity) -> Effect[Identity]:
    return Effect(result=_linked(connection, actor, _person(connection, user_name), draft))


def _link_and_sign_in(
    connection: Connection, actor: str, user_name: str, draft: Identity, claims: Claims, now: datetime
) -> Effect[User]:
    provider = _known(connection, draft.provider_id)
    assert claims.issuer == provider.issuer, "claims are checked against the issuer they are to be from"
    known = _linked(connection, actor, _person(connection, user_name), draft)
    return _refresh(connection, provider, known, claims, now)


def _unlink(
    connection: Connection, actor: str, user_name: str, provider_id: int, now: datetime
) -> Effect[int]:
    user, provider = _person(connection, user_name), _known(connection, provider_id)
    mine = [one for one in signin.identities_of(connection, user.id) if one.provider_id == provider_id]
    if not mine:
        raise NotFound(
            f"{user.name} does not sign in by {provider.name}",
            cure=f"`doorward users identities {user.name}` says by what.",
        )
    for one in mine:
        signin.delete_identity(connection, one.id)
    ended = signin.end_sessions(connection, now, user_id=user.id, method=f"provider:{provider.name}")
    details = {"provider": provider.name, "subjects": [one.subject for one in mine], "sessions": ended}
    audit.append(connection, actor, "user.unlink", f"user:{user.name}", details, now)
    return Effect(result=len(mine), users=_regroup(connection, {user.id}))
