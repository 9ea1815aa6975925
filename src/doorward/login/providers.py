"""Answering at an outside provider: the browser goes there with a question of ours and comes back with a code.

================================  =====================================================================
``POST /signin/provider``         off to the provider whose button it was
``GET /signin/callback/NAME``     back from it, with what answers the asking that the browser was sent with
================================  =====================================================================

The way out is a page that leads on by itself, not a redirect: a form's target is kept to this origin by the content policy, and
browsers hold redirects to that, too. The way back is a GET from elsewhere, and changes nothing but for the one browser whose cookie
holds the secret of an asking that was sent out with exactly this state, once.
"""

import hmac
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.asgi import RateLimit
from doorward.clock import Clock
from doorward.errors import DoorwardError, NotFound, NotPermitted
from doorward.login import pages
from doorward.login.asking import ENROL, SIGN_IN, Answer, Askings, OverAsking, as_page
from doorward.login.doors import Place, asker
from doorward.login.pages import Door
from doorward.login.upstream import CALLBACK, Upstream
from doorward.model import Asking, Claims, Provider, User
from doorward.store import signin
from doorward.store.columns import EPOCH


class Providers:
    """The pages.

    Args:
        askings: what they answer.
        upstream: asks providers.
        clock: for rate limits.
    """

    def __init__(self, askings: Askings, upstream: Upstream, clock: Clock) -> None:
        self._askings = askings
        self._registry = askings.registry
        self._upstream = upstream
        self._returns = RateLimit(rate=1.0, burst=30.0, clock=clock)
        askings.providers = self._names

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/signin/provider", as_page(self._registry, self._leave), methods=["POST"]),
            Route(CALLBACK + "{name}", as_page(self._registry, self._return), methods=["GET"]),
        ]

    async def _names(self) -> list[str]:
        return [one.name for one in await self._registry.outside.providers()]

    async def _leave(self, request: Request) -> Response:
        form = await self._askings.form(request)
        asking = await self._askings.current(request, form.get("asking", ""))
        place = self._askings.doors.require(request)
        try:
            provider = await self._registry.outside.provider(form.get("provider", ""))
            started = await self._upstream.start(
                provider, redirect_uri=_back(place, provider), fresh=asking.act not in {SIGN_IN, ENROL}
            )
        except NotFound:
            raise OverAsking from None
        except DoorwardError as error:  # it is down: the other ways are still there
            return await self._askings.page(asking, error)
        await self._registry.writer.database.run(
            signin.send_to_provider, asking.id, provider.id, started.state, started.nonce, started.verifier
        )
        settings = self._registry.snapshot.settings
        return pages.page(
            "leave.html",
            tailnet=settings.display_name or settings.domain,
            door=Door.AJAR,
            label="asks who you are",
            provider=provider.name,
            url=started.url,
            comes_back=True,
            headers={"Refresh": f"0; url={started.url}"},
        )

    async def _return(self, request: Request) -> Response:
        place = self._askings.doors.require(request)
        self._returns.take(asker(request))
        state = request.query_params.get("state", "")
        asking = await self._sent_with(request, state)
        provider = next(
            (one for one in await self._registry.outside.providers() if one.id == asking.provider_id), None
        )
        # The address says which provider answers (RFC 9700 section 4.4): another's answer is not taken for this one's.
        if provider is None or provider.name != request.path_params["name"]:
            raise OverAsking
        # Before anything else is looked at: this address counts once, whatever it brings.
        if not await self._registry.writer.database.run(signin.take_state, asking.id, state):
            raise OverAsking
        fresh = asking.act not in {SIGN_IN, ENROL}
        try:
            claims = await self._upstream.finish(
                provider,
                redirect_uri=_back(place, provider),
                query=dict(request.query_params),
                state=asking.state,
                nonce=asking.nonce,
                verifier=asking.verifier,
                fresh_since=asking.created if fresh else None,
            )
            user = await self._person(asking, provider, claims)
            proven = _shown_at(claims, self._registry.writer.now())
            answer = Answer(user, f"provider:{provider.name}", proven)
            return await self._askings.answer(request, asking, answer)
        except OverAsking:
            raise
        except DoorwardError as error:
            if asking.act == ENROL:  # its own page is the one that makes passkeys
                raise
            return await self._askings.page(asking, error)

    async def _sent_with(self, request: Request, state: str) -> Asking:
        """The asking that this browser was sent out with. Raises OverAsking."""
        for number in self._askings.numbers(request):
            try:
                asking = await self._askings.current(request, number)
            except OverAsking:
                continue
            if asking.state and hmac.compare_digest(asking.state.encode(), state.encode()):
                return asking
        raise OverAsking

    async def _person(self, asking: Asking, provider: Provider, claims: Claims) -> User:
        """Who that is here. An invitation makes the subject the invited person; only signing in makes a new one."""
        outside = self._registry.outside
        if asking.act == ENROL:
            invited = self._registry.snapshot.users.get(asking.user_id or 0)
            if invited is None:
                raise NotPermitted(
                    "who was invited is not there any more", cure="Ask for another invitation."
                )
            return await outside.link_identity(f"user:{invited.name}", invited.name, provider, claims)
        return await outside.signed_in(provider, claims, admit=asking.act == SIGN_IN)


def _back(place: Place, provider: Provider) -> str:
    return f"{place.base}{CALLBACK}{provider.name}"


def _shown_at(claims: Claims, now: datetime) -> datetime:
    """When they showed who they are, as the provider has it. A silent answer, which says nothing of that, is no proof."""
    return EPOCH if claims.auth_time is None else min(claims.auth_time, now)
