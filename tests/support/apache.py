"""Debian's Apache with ``libapache2-mod-auth-openidc``, behind a proxy that ends TLS; its settings are what a guide would say."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.house import House, MadeApp
from tests.support.programs import require
from tests.support.relay import Leaf
from tests.support.require import missing
from tests.support.server import free_port
from tests.support.waiting import until

from doorward.engine.processes import stop, tied_to_us

HOST = "intranet.example.com"
BACK = f"https://{HOST}/signed/back"
_MODULES = Path("/usr/lib/apache2/modules")
_LOADED = (
    *("mpm_event", "authn_core", "authz_core", "authz_user", "alias", "dir", "env", "headers"),
    "auth_openidc",
)
_SETTINGS = """
ServerRoot {folder}
ServerName {host}
PidFile {folder}/pid
ErrorLog {folder}/log
LogLevel warn mpm_event:notice auth_openidc:info
Listen 127.0.0.1:{port}
{modules}
{person}
DocumentRoot {folder}/pages
KeepAlive Off

OIDCProviderMetadataURL {app.issuer}/.well-known/openid-configuration
OIDCClientID {app.client_id}
OIDCClientSecret {app.secret}
OIDCRedirectURI {back}
OIDCCryptoPassphrase {passphrase}
OIDCOutgoingProxy localhost:{proxy}
OIDCCABundlePath {folder}/authority.pem
OIDCXForwardedHeaders X-Forwarded-Proto X-Forwarded-Host
OIDCPKCEMethod S256
OIDCScope "openid profile groups offline_access"
OIDCRemoteUserClaim preferred_username
OIDCInfoHook iat access_token id_token userinfo refresh_token session
OIDCDefaultLoggedOutURL https://{host}/
{more}
<Location /signed>
    AuthType openid-connect
    Require valid-user
    Header set X-User "expr=%{{REMOTE_USER}}"
    Header set X-Name "expr=%{{reqenv:OIDC_CLAIM_name}}"
    Header set X-Roles "expr=%{{reqenv:OIDC_CLAIM_roles}}"
    Header set X-Access "expr=%{{reqenv:OIDC_access_token}}"
</Location>
<Location /editors>
    AuthType openid-connect
    Require claim roles:editor
</Location>
OIDCOAuthIntrospectionEndpoint {app.issuer}/introspect
OIDCOAuthClientID {app.client_id}
OIDCOAuthClientSecret {app.secret}
OIDCOAuthRemoteUserClaim sub
OIDCOAuthTokenIntrospectionInterval -1
<Location /api>
    AuthType oauth20
    Require valid-user
    Header set X-User "expr=%{{REMOTE_USER}}"
</Location>
"""


_TLS = """
LoadModule ssl_module {modules}/mod_ssl.so
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    SSLEngine on
    SSLCertificateFile {folder}/leaf.pem
</VirtualHost>
"""


@contextlib.asynccontextmanager
async def apache(
    house: House, app: MadeApp, more: str = "", *, also: int = 0, leaf: Leaf | None = None
) -> AsyncIterator[int]:
    """Serve ``/``, and what one has to sign in for: ``/signed``, ``/editors``, and ``/api`` for programs.

    Args:
        house: whose door it sends people to.
        app: as which.
        more: more lines of its settings.
        also: another port where it is itself, with TLS.
        leaf: the certificate there.

    Returns:
        Its port on this machine; people call it ``https://intranet.example.com``.
    """
    program = require("apache2")
    if not (_MODULES / "mod_auth_openidc.so").exists():
        missing("mod_auth_openidc is missing; to get it: apt-get install libapache2-mod-auth-openidc")
    with tempfile.TemporaryDirectory(prefix="dw-apache-", ignore_cleanup_errors=True) as temporary:
        folder, port = Path(temporary), free_port()
        await asyncio.to_thread(_furnish, folder, house, app, port, more)
        if leaf is not None:
            await asyncio.to_thread(_secure, folder, also, leaf)
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([program, "-f", str(folder / "settings"), "-DFOREGROUND"]),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await until(lambda: _listens(process, folder), 30)
            yield port
        except BaseException:
            print(_log(folder)[-6000:])  # noqa: T201 - pytest shows it with the failure
            raise
        finally:
            await stop(process, 10)


def _furnish(folder: Path, house: House, app: MadeApp, port: int, more: str) -> None:
    folder.chmod(0o755)  # its processes give up root's rights
    for name in ("", "signed", "editors", "api"):
        (folder / "pages" / name).mkdir(exist_ok=True)
        (folder / "pages" / name / "index.html").write_text(f"<!doctype html>this is /{name}")
    shutil.copy(house.authority, folder / "authority.pem")
    settings = _SETTINGS.format(
        folder=folder,
        host=HOST,
        back=BACK,
        port=port,
        app=app,
        proxy=house.laptop.http_port,
        passphrase=os.urandom(16).hex(),
        modules="\n".join(f"LoadModule {one}_module {_MODULES}/mod_{one}.so" for one in _LOADED),
        person="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
        more=more,
    )
    (folder / "settings").write_text(settings)


def _secure(folder: Path, port: int, leaf: Leaf) -> None:
    (folder / "leaf.pem").write_bytes(leaf.pem + leaf.key_pem)
    with (folder / "settings").open("a") as settings:
        settings.write(_TLS.format(folder=folder, port=port, modules=_MODULES))


def _listens(process: asyncio.subprocess.Process, folder: Path) -> bool:
    assert process.returncode is None, _log(folder)
    return "resuming normal operations" in _log(folder)


def _log(folder: Path) -> str:
    file = folder / "log"
    return file.read_text(errors="replace") if file.exists() else ""
