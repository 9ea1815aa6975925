"""The only writer of what the netmap depends on: users, nodes, keys, policy, settings.

Every method raises a DoorwardError with its cure, and then has changed nothing. ``actor`` says who does it, for the audit
log: ``cli``, ``user:NAME``, ``token:ID``, ``system``.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from doorward.clock import Clock
from doorward.errors import BadInput, Conflict, DoorwardError, NotFound, Unauthenticated
from doorward.model import (
    ApiToken,
    Attribute,
    AuditEvent,
    AuthKey,
    Node,
    PolicyEntry,
    PolicyVersion,
    Process,
    Registration,
    Role,
    User,
)
from doorward.policy import parse_policy
from doorward.policy.check import check as run_tests
from doorward.policy.edit import Edit
from doorward.policy.edit import apply as apply_edits
from doorward.policy.posture import CountryOf
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion
from doorward.store import Database, audit, checkpoints, keys, policies, registrations
from doorward.tailnet import attributes, names, secrets, units
from doorward.tailnet.access import Access
from doorward.tailnet.admission import Admission
from doorward.tailnet.approval import Widening
from doorward.tailnet.checks import Checks
from doorward.tailnet.dns import checked
from doorward.tailnet.keeping import keep_deadlines
from doorward.tailnet.neighbours import Neighbours, enter
from doorward.tailnet.observe import Observations
from doorward.tailnet.outside import Outside
from doorward.tailnet.settings import DNS, Settings
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.sshrules import KeptChecks
from doorward.tailnet.tabs import Tabs
from doorward.tailnet.tidying import keep_tidy
from doorward.tailnet.troubles import Troubles
from doorward.tailnet.writer import Effect, Writer, load
from doorward.telemetry import log

_COMMENT_MAX = 500  # characters; what the API takes
_KEY_LIFETIME_MAX = timedelta(days=365 * 2)

_log = log("tailnet")


class Registry:
    """The tailnet as a thing that can be changed. Made by ``open``.

    Attributes:
        writer: the snapshot and how it is replaced; services read ``writer.snapshot`` and subscribe to its changes.
        admission: registrations of clients.
        observations: reports and presence of nodes.
        checks: who asks before an ssh goes on, and the record of every attempt.
        outside: providers at which people sign in, and who their subjects are.
        access: who is shut out, who waits, which nodes are kept apart.
        tabs: browsers' tabs that are nodes.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._relays = writer.snapshot.settings.derp_map
        self.observations = Observations(writer)
        self.admission = Admission(writer, self.observations)
        self.checks = Checks(writer)
        self.outside = Outside(writer)
        self.access = Access(writer)
        self.tabs = Tabs(writer, self.observations)
        self.policy_file: Path | None = None
        self.neighbours: Neighbours | None = None

    @classmethod
    async def open(
        cls,
        database: Database,
        settings: Settings,
        clock: Clock,
        entropy: Callable[[int], bytes],
        process: Process | None = None,
    ) -> "Registry":
        """Read the store, giving a new one the default policy. ``settings.dns`` is replaced by the stored one.

        With a ``process`` (PostgreSQL only) the store may be shared: it is entered there, and what others change is
        followed. Raises Conflict when the others that live cannot be served beside.
        """
        await database.run(units.first_policy, clock.now())
        entered = None if process is None else await database.run(enter, process)
        # A shared one as a write: it takes its turn, and what is committed later is told of.
        found = await (database.read(load) if entered is None else database.run(load))
        snapshot = Snapshot.build(
            msgspec.structs.replace(
                settings, dns=found.dns, joining=found.joining, several=entered is not None
            ),
            found.users,
            found.nodes,
            parse_policy(found.policy.text),
            found.policy.text,
            KeptChecks.of(found.checks),
            found.cuts,
        )
        registry = cls(Writer(database, snapshot, clock, entropy))
        registry.checks.look_at_clock(clock.now())
        if entered is not None:
            registry.neighbours = Neighbours(
                registry.writer, registry.observations, registry.admission, entered, registry.show_relays
            )
            registry.show_relays()
        return registry

    @property
    def snapshot(self) -> Snapshot:
        """The truth now."""
        return self.writer.snapshot

    async def catch_up(self) -> None:
        """Take in what other processes have committed up to now. Without a store we go on with what we know."""
        if self.neighbours is not None:
            try:
                await self.neighbours.catch_up()
            except DoorwardError as error:
                _log.info("not caught up", reason=error.message)

    async def run(self) -> None:
        """Background work until cancelled: write observations, and do what falls due."""
        self.observations.started()
        async with asyncio.TaskGroup() as group:
            if self.neighbours is not None:
                group.create_task(self.neighbours.run())
            group.create_task(self.writer.run())
            group.create_task(self.observations.run())
            group.create_task(keep_deadlines(self.writer, self.checks, self.access))
            group.create_task(Troubles(self.writer).run())
            group.create_task(keep_tidy(self.writer))
            group.create_task(self.checks.unseen.run())
            group.create_task(self.tabs.run())

    # Users

    async def create_user(
        self, actor: str, name: str, *, email: str = "", display_name: str = "", role: Role = Role.MEMBER
    ) -> User:
        """Add a person. Raises BadInput for a name that cannot be one, Conflict for one that is taken."""
        draft = User(
            id=0,
            name=names.user_name(name),
            email=email,
            display_name=display_name,
            role=role,
            created=self.writer.now(),
        )
        return await self.writer.apply(units.create_user, actor, draft)

    async def set_role(self, actor: str, name: str, role: Role) -> User:
        """Give a person another role."""
        return await self.writer.apply(
            units.update_user, actor, self._user(name).id, {"role": role}, self.writer.now()
        )

    async def suspend_user(self, actor: str, name: str, *, suspended: bool) -> User:
        """Shut a person out, or in again.

        While they are suspended their nodes' map streams and relay connections end and none begins, no rule lets them in
        anywhere as a source, and nothing of theirs is admitted. Nodes, keys and addresses stay theirs.
        """
        return await self.writer.apply(
            units.suspend_user, actor, self._user(name).id, suspended, self.writer.now()
        )

    async def delete_user(self, actor: str, name: str, *, with_nodes: bool = False) -> None:
        """Remove a person, and their auth keys, tokens, sessions and ways to sign in.

        Raises Conflict for the only owner, and while they have nodes, unless those are to go at once too.
        """
        await self.writer.apply(units.delete_user, actor, self._user(name), with_nodes, self.writer.now())

    def _user(self, name: str) -> User:
        user = self.snapshot.user_by_name(name.strip().lower())
        if user is None:
            raise NotFound(
                f"there is no user {name!r}",
                cure="`doorward users list` shows them; `users create` adds one.",
            )
        return user

    # Auth keys and API tokens

    async def create_auth_key(
        self,
        actor: str,
        *,
        user: str | None,
        tags: Sequence[str] = (),
        reusable: bool = False,
        ephemeral: bool = False,
        preapproved: bool = False,
        expires_in: timedelta = timedelta(hours=1),
        system: bool = False,
    ) -> tuple[AuthKey, str]:
        """Make an auth key; its text is returned this once. Raises BadInput or NotFound.

        What a ``preapproved`` one admits waits for no administrator.
        """
        owner = None if user is None else self._user(user)
        if owner is None and not tags and not system:
            raise BadInput("an auth key needs an owner for the nodes it admits", cure="Give --user or --tag.")
        self._check_tags(tags)
        now = self.writer.now()
        if not timedelta(0) < expires_in <= _KEY_LIFETIME_MAX:
            raise BadInput(
                "an auth key lives between a second and two years", cure="Give --expires as 30m, 12h or 90d."
            )
        secret = secrets.make(secrets.AUTH_KEY, self.writer.entropy(secrets.ENTROPY))
        draft = AuthKey(
            id=0,
            prefix=secret.prefix,
            secret_hash=secret.digest,
            user_id=None if owner is None else owner.id,
            tags=tuple(sorted(set(tags))),
            reusable=reusable,
            ephemeral=ephemeral,
            created=now,
            expires=now + expires_in,
            system=system,
            preapproved=preapproved,
        )
        process = self.writer.process if system else None
        return await self.writer.apply(units.create_auth_key, actor, draft, process), secret.text

    async def claim_own_node(self, stable_id: str) -> None:
        """Our own node has come up with the login that it kept: note that it is ours, where that was forgotten."""
        process, neighbours = self.writer.process, self.neighbours
        if process is None or neighbours is None:
            return
        node = self.snapshot.node_by_stable_id(stable_id)
        if node is None or node.id not in neighbours.own_nodes():
            await self.writer.apply(units.claim_own_node, process, stable_id)

    async def list_auth_keys(self) -> list[AuthKey]:
        """All auth keys, oldest first, spent ones too."""
        return [key for key in await self.writer.database.read(keys.all_auth_keys) if not key.system]

    async def revoke_auth_key(self, actor: str, key_id: int) -> AuthKey:
        """Stop a key from admitting any further node. Nodes it admitted stay."""
        return await self.writer.apply(units.revoke_auth_key, actor, key_id, self.writer.now())

    async def create_api_token(
        self,
        actor: str,
        *,
        description: str,
        role: Role = Role.ADMIN,
        expires_in: timedelta | None = None,
        owner: User | None = None,
    ) -> tuple[ApiToken, str]:
        """Make a bearer token of the API; its text is returned this once. One with an ``owner`` ends with them."""
        now = self.writer.now()
        secret = secrets.make(secrets.API_TOKEN, self.writer.entropy(secrets.ENTROPY))
        draft = ApiToken(
            id=0,
            prefix=secret.prefix,
            secret_hash=secret.digest,
            description=description,
            role=role,
            created=now,
            expires=None if expires_in is None else now + expires_in,
            user_id=None if owner is None else owner.id,
        )
        return await self.writer.apply(units.create_api_token, actor, draft), secret.text

    async def list_api_tokens(self) -> list[ApiToken]:
        """All API tokens, oldest first."""
        return await self.writer.database.read(keys.all_api_tokens)

    async def revoke_api_token(self, actor: str, token_id: int) -> ApiToken:
        """Make a token useless at once."""
        return await self.writer.apply(units.revoke_api_token, actor, token_id, self.writer.now())

    async def check_api_token(self, secret: str) -> ApiToken:
        """The token with this text.

        Raises Unauthenticated unless it is known, in time and not revoked, and its person, if it has one, is not shut out.
        """
        token = await self.writer.database.read(keys.api_token_by_hash, secrets.digest(secret))
        now = self.writer.now()
        if token is None or self._is_over(token, now):
            raise Unauthenticated(
                "this API token is not valid", cure="`doorward tokens create` on the server makes one."
            )
        return token

    def _is_over(self, token: ApiToken, now: datetime) -> bool:
        if token.revoked is not None or (token.expires is not None and token.expires <= now):
            return True
        owner = None if token.user_id is None else self.snapshot.users.get(token.user_id)
        return token.user_id is not None and (owner is None or owner.suspended)

    # Nodes

    async def list_registrations(self) -> list[Registration]:
        """The nodes that wait for a person."""
        return await self.writer.database.read(registrations.waiting, self.writer.now())

    async def registration(self, code: str) -> Registration | None:
        """The registration behind a link's code; None when there is none."""
        return await self.writer.database.read(registrations.by_code_hash, secrets.digest(code))

    async def approve(
        self, actor: str, link_or_id: str, *, user: str | None = None, by_administrator: bool = False
    ) -> Node:
        """Let a waiting node in, for a person. Takes its link, the code in it, or its number.

        Where devices wait for an administrator, one that is new does so still, unless it is an administrator who approves.
        """
        if user is not None:
            owner = self._user(user)
        elif len(self.snapshot.users) == 1:
            owner = next(iter(self.snapshot.users.values()))
        else:
            raise BadInput("whose node is it?", cure="Give --user NAME.")
        number = await self._waiting_number(link_or_id)
        return await self.admission.approve(actor, number, owner, by_administrator=by_administrator)

    async def deny(self, actor: str, link_or_id: str) -> Registration:
        """Refuse a waiting node. Takes what ``approve`` takes."""
        return await self.admission.deny(actor, await self._waiting_number(link_or_id))

    async def _waiting_number(self, link_or_id: str) -> int:
        text = link_or_id.strip().rstrip("/").rpartition("/")[2]
        if text.isdecimal() and len(text) < 19:  # no more fit into the database
            return int(text)
        registration = await self.registration(text)
        if registration is None:
            raise NotFound(
                "no device waits under this link",
                cure="`doorward nodes list` shows the devices that wait; a link lives for 15 minutes.",
            )
        return registration.id

    async def rename_node(self, actor: str, node_id: int, name: str) -> Node:
        """Give a node a name of your choice; a changed hostname no longer changes it."""
        label = names.check_label(name)
        if label == self.snapshot.settings.door_label:
            raise Conflict(f"{label} is what the door is called", cure="Choose another name.")
        return await self.writer.apply(units.rename_node, actor, node_id, label, self.writer.now())

    async def expire_node(self, actor: str, node_id: int) -> Node:
        """End a node's key: its person has to sign in again."""
        return await self.writer.apply(units.expire_node, actor, node_id, self.writer.now())

    async def delete_node(self, actor: str, node_id: int) -> None:
        """Remove a node; its client has to join anew."""
        await self._remove_node(actor, node_id, "")

    async def _remove_node(self, actor: str, node_id: int, reason: str) -> None:
        await self.writer.apply(units.delete_node, actor, node_id, reason, self.writer.now())

    async def set_tags(self, actor: str, node_id: int, tags: Sequence[str]) -> Node:
        """Replace a node's tags. None at all gives it back to the person who registered it."""
        self._check_tags(tags)
        now = self.writer.now()
        key_end = self.snapshot.settings.key_end(now)
        return await self.writer.apply(units.set_tags, actor, node_id, tuple(sorted(set(tags))), key_end, now)

    async def set_attributes(
        self,
        actor: str,
        node_id: int,
        said: Sequence[Attribute] = (),
        *,
        gone: Sequence[str] = (),
        comment: str = "",
    ) -> Node:
        """Say things about a node for postures to judge it by, and take others back. Raises BadInput, NotFound, Conflict."""
        now = self.writer.now()
        checked_ones = [attributes.check_attribute(one, now) for one in said]
        keys_gone = [attributes.check_key(key) for key in gone]
        return await self.writer.apply(
            attributes.set_attributes, actor, node_id, checked_ones, keys_gone, comment, now
        )

    def _check_tags(self, tags: Iterable[str]) -> None:
        for tag in tags:
            if not self.snapshot.policy.knows_tag(tag):
                raise BadInput(
                    f"the policy knows no {tag}", cure='Add it to "tagOwners" with `doorward policy set`.'
                )

    async def set_routes(
        self, actor: str, node_id: int, *, approve: Sequence[str] = (), reject: Sequence[str] = ()
    ) -> Node:
        """Approve or reject routes that a node advertises, or will. An exit route stands for both families."""
        add, drop = units.prefixes(approve), units.prefixes(reject)
        return await self.writer.apply(units.set_routes, actor, node_id, add, drop, self.writer.now())

    # Policy, DNS, audit

    @property
    def policy_text(self) -> str:
        """The policy file as it was written, comments and all."""
        return self.snapshot.policy_text

    async def current_policy(self) -> PolicyVersion:
        """The version in force."""
        version = await self.writer.database.read(policies.current)
        assert version is not None, "a store has a policy from its first start on"
        return version

    async def set_policy(
        self,
        actor: str,
        text: str,
        *,
        filename: str = "policy.hujson",
        comment: str = "",
        expected: int | None = None,
    ) -> PolicyVersion:
        """Put another policy in force; the text that is in force already makes no new version.

        Raises PolicyError, with every fault's place, PolicyChanged when the version ``expected`` is no longer in force, and
        Conflict while a file owns the policy; then the old one stays.
        """
        self._require_unowned()
        return await self._put_policy(actor, text, filename, comment=comment, expected=expected)

    def _require_unowned(self) -> None:
        if self.policy_file is not None:
            raise Conflict(
                f"the policy is owned by {self.policy_file}",
                cure="Edit that file and send doorward SIGHUP, or remove `policy.file` from the settings.",
            )

    async def own_policy(self, file: Path) -> None:
        """Read the policy from a file, which from now on is the only way to change it. A bad file changes nothing."""
        try:
            text = (await asyncio.to_thread(file.read_bytes)).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(
                f"the policy file cannot be read: {error}",
                cure="Correct `policy.file` in the settings, or the file's permissions.",
                place=str(file),
            ) from None
        if text != self.policy_text:
            await self._put_policy("file", text, str(file), comment=str(file))
        self.policy_file = file

    async def _put_policy(
        self,
        actor: str,
        text: str,
        filename: str,
        *,
        comment: str,
        expected: int | None = None,
        restores: int | None = None,
    ) -> PolicyVersion:
        document = parse_policy(text, filename=filename)
        snapshot = self.snapshot
        policy = snapshot.with_policy(document, text).policy
        run_tests(policy)
        routers = tuple(node for node in snapshot.nodes.values() if node.observed.hostinfo.RoutableIPs)
        draft = units.PolicyDraft(
            document=document,
            text=text,
            comment=comment,
            expected=expected,
            restores=restores,
            widening=Widening(snapshot.policy, policy, routers),
        )
        return await self.writer.apply(units.set_policy, actor, draft, self.writer.now())

    async def policy_history(self, limit: int = 50, *, before: int | None = None) -> list[PolicyEntry]:
        """The versions of the policy without their texts, newest first; those older than the id ``before``."""
        return await self.writer.database.read(policies.history, before=before, limit=limit)

    async def policy_version(self, version_id: int) -> PolicyVersion:
        """A version of the policy. Raises NotFound."""
        version = await self.writer.database.read(policies.by_id, version_id)
        if version is None:
            raise NotFound(
                f"there is no policy version {version_id}, or it is no longer kept",
                cure="`doorward policy history` lists those there are.",
            )
        return version

    async def policy_before(self, version_id: int) -> PolicyVersion | None:
        """The version before this one, if it is still kept."""
        return await self.writer.database.read(policies.before, version_id)

    async def rollback_policy(
        self, actor: str, version_id: int | None = None, *, comment: str = "", expected: int | None = None
    ) -> PolicyVersion:
        """Put an earlier policy in force again, as a new version; without an id the one before the current.

        It is checked like any other: nodes, people and rules of the language may have changed meanwhile. Raises like
        `set_policy`, and NotFound.
        """
        self._require_unowned()
        if version_id is None:
            now = await self.current_policy()
            version = await self.policy_before(now.id)
            if version is None:
                raise Conflict("there is no earlier version to go back to", cure="Set the policy you want.")
            expected = now.id if expected is None else expected
        else:
            version = await self.policy_version(version_id)
        return await self._put_policy(
            actor,
            version.text,
            f"version {version.id}",
            comment=f"back to version {version.id}" + (f": {comment}" if comment else ""),
            expected=expected,
            restores=version.id,
        )

    async def edit_policy(
        self, actor: str, edits: Sequence[Edit], *, comment: str = "", expected: int | None = None
    ) -> tuple[PolicyVersion, PolicyVersion]:
        """Change parts of the policy and leave the rest as it is written; the versions before and after.

        Where somebody else changes the policy meanwhile, the edits are made again on theirs, unless ``expected`` says which
        version they are for. Edits that change nothing make no version. Raises like `set_policy` and `edit.apply`.
        """
        self._require_unowned()
        why = comment or "; ".join(map(str, edits))[:_COMMENT_MAX]
        while True:
            before = await self.current_policy()
            if expected is not None and expected != before.id:
                raise units.PolicyChanged(expected, before)
            text = apply_edits(before.text, edits)
            try:
                after = await self._put_policy(
                    actor, text, "the changed policy", comment=why, expected=before.id
                )
            except units.PolicyChanged:
                if expected is not None:
                    raise
                continue  # every time round somebody else got their change in, so this ends
            return before, after

    async def set_dns(self, actor: str, dns: DNS) -> DNS:
        """Replace what nodes are told about DNS. Raises BadInput for what clients could not use."""
        good = checked(dns, self.snapshot.settings)
        return await self.writer.apply(units.set_dns, actor, good, self.writer.now())

    async def set_derp_map(self, derp_map: DERPMap, own: DERPRegion | None = None) -> None:
        """Tell everybody of other relays, and other processes of our ``own``.

        Not stored: it follows from the settings and the relay's certificate.
        """
        self._relays = derp_map
        if self.neighbours is not None:
            await self.neighbours.say_region(own)
        self.show_relays()

    def set_countries(self, country_of: CountryOf | None) -> None:
        """Judge everybody by another idea of which address is in which country. Not stored: it follows from the settings."""
        if country_of is not self.snapshot.settings.country_of:
            settings = msgspec.structs.replace(self.snapshot.settings, country_of=country_of)
            self.writer.publish(Effect(result=None, settings=settings))

    def show_relays(self) -> None:
        """Tell everybody of our relays and those of the other processes, if that is news, and of their doors."""
        relays, own_nodes = self._relays, self.snapshot.settings.own_nodes
        if self.neighbours is not None:
            relays, own_nodes = self.neighbours.with_relays(relays), self.neighbours.own_nodes()
        settings = msgspec.structs.replace(self.snapshot.settings, derp_map=relays, own_nodes=own_nodes)
        if settings != self.snapshot.settings:
            self.writer.publish(Effect(result=None, settings=settings))

    async def audit(self, **conditions: Any) -> list[AuditEvent]:
        """Audit events; the conditions are the fields of ``store.audit.Search``."""
        return await self.writer.database.read(audit.load, **conditions)

    async def verify_audit(self) -> int | None:
        """The number of the first event that is missing or not what was written; ``doorward.audit`` says more."""
        verdict = await self.writer.database.read(checkpoints.verify)
        return verdict.problems[0].seq if verdict.problems else None
