"""The OpenID Connect and OAuth server that knows who somebody is from their connection.

::

    app ──▶ browser ──▶ authorize: client, redirect, parameters ──▶ who? ──▶ decision ──▶ silent ──────▶ code
                                                                      │          ├──────▶ a page asks ─▶ code
                                                                      │          └──────▶ refused
                                                                      └ nobody known ──▶ sign-in page ──▶ who?
    app ──▶ token: client authentication ──▶ grants/…: code, refresh, client's own ──▶ tokens signed ──▶ app
    app ──▶ device: a code to show; a person says yes to it elsewhere, and the app asks for tokens until then
    app ──▶ pushed: a request left here, before a browser is sent with its name
    app ──▶ userinfo, introspection, revocation

A person is known by the device at the other end of the connection, or by the session of a browser in which they signed in;
never by a header. What an app is told of them, and whether they may use it, the policy says (``doorward.policy.apps``), each time
anew. What a person gave an app is a row (``AppGrant``): its code is redeemed once, a refresh token is exchanged once, and a second
time ends the whole, and so does the loss of access (``sweep``). Everything here is served at the door's own name and nowhere else.

It imports no other service.
"""

from doorward.issuer.service import Issuer

__all__ = ["Issuer"]
