"""What to set in well-known programs so that people sign in there by us: text to paste, complete and nothing beside it.

A preset knows where its program wants people sent back to, so that `--url` is all there is to say.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple
from urllib.parse import quote

from doorward.errors import BadInput

Name = Literal["grafana", "proxmox", "gitea", "open-webui", "jupyterhub", "argocd", "vault", "nginx", "mcp"]


class Values(NamedTuple):
    """What the texts are made from."""

    name: str
    url: str  # of the program, without a slash at its end
    issuer: str
    client_id: str
    secret: str
    scopes: tuple[str, ...] = ()  # of its own


class Preset(NamedTuple):
    """One program."""

    back: tuple[str, ...]  # redirect addresses: below the program's own, or whole ones
    settings: Callable[[Values], str]
    left: tuple[
        str, ...
    ] = ()  # where it has people sent back to who sign out, in the same form; empty where it knows no such thing
    public: bool = False
    is_resource: bool = (
        False  # the address is what tokens are for, also those of apps that come by themselves
    )


def redirects(preset: Preset, url: str) -> tuple[str, ...]:
    """The redirect addresses of a program at ``url``."""
    return _below(preset.back, url)


def signed_out(preset: Preset, url: str) -> tuple[str, ...]:
    """Where a program at ``url`` has people sent back to who sign out."""
    return _below(preset.left, url)


def _below(places: tuple[str, ...], url: str) -> tuple[str, ...]:
    return tuple(url + place if place.startswith("/") or not place else place for place in places)


def program_url(url: str) -> str:
    """The program's address, in the form that presets take. Raises BadInput without one."""
    if not url.startswith("https://") and not url.startswith("http://localhost"):
        raise BadInput(
            "a preset needs the https address of the program", cure="Give --url https://grafana.example.com."
        )
    return url.rstrip("/")


def _end_session(at: Values, back: str) -> str:
    """Where a program sends people who sign out, and from there back to a place below it."""
    return f"{at.issuer}/end_session?client_id={at.client_id}&post_logout_redirect_uri={quote(at.url + back, safe='')}"


def _grafana(at: Values) -> str:
    return f"""# grafana.ini
[server]
root_url = {at.url}/

[auth.generic_oauth]
enabled = true
name = doorward
auto_login = true
client_id = {at.client_id}
client_secret = {at.secret}
scopes = openid profile email groups
auth_url = {at.issuer}/authorize
token_url = {at.issuer}/token
api_url = {at.issuer}/userinfo
signout_redirect_url = {_end_session(at, "/login")}
use_pkce = true
login_attribute_path = preferred_username
role_attribute_path = contains(roles[*], 'admin') && 'Admin' || contains(roles[*], 'editor') && 'Editor' || 'Viewer'
"""


def _proxmox(at: Values) -> str:
    return f"""# On the Proxmox machine:
pveum realm add doorward --type openid --issuer-url {at.issuer} \\
  --client-id {at.client_id} --client-key {at.secret} \\
  --username-claim username --scopes 'openid profile email' --autocreate 1
"""


def _gitea(at: Values) -> str:
    return f"""# On the Gitea machine:
gitea admin auth add-oauth --name doorward --provider openidConnect \\
  --key {at.client_id} --secret {at.secret} \\
  --auto-discover-url {at.issuer}/.well-known/openid-configuration \\
  --scopes openid --scopes profile --scopes email --scopes groups
"""


def _open_webui(at: Values) -> str:
    return f"""# environment of Open WebUI
WEBUI_URL={at.url}
ENABLE_OAUTH_SIGNUP=true
OAUTH_PROVIDER_NAME=doorward
OAUTH_CLIENT_ID={at.client_id}
OAUTH_CLIENT_SECRET={at.secret}
OPENID_PROVIDER_URL={at.issuer}/.well-known/openid-configuration
OPENID_REDIRECT_URI={at.url}/oauth/oidc/callback
OAUTH_SCOPES=openid profile email
OAUTH_CODE_CHALLENGE_METHOD=S256
WEBUI_AUTH_SIGNOUT_REDIRECT_URL={at.url}
"""


def _jupyterhub(at: Values) -> str:
    return f"""# jupyterhub_config.py
c.JupyterHub.authenticator_class = "generic-oauth"
c.GenericOAuthenticator.client_id = "{at.client_id}"
c.GenericOAuthenticator.client_secret = "{at.secret}"
c.GenericOAuthenticator.oauth_callback_url = "{at.url}/hub/oauth_callback"
c.GenericOAuthenticator.authorize_url = "{at.issuer}/authorize"
c.GenericOAuthenticator.token_url = "{at.issuer}/token"
c.GenericOAuthenticator.userdata_url = "{at.issuer}/userinfo"
c.GenericOAuthenticator.scope = ["openid", "profile", "email", "groups"]
c.GenericOAuthenticator.username_claim = "preferred_username"
c.GenericOAuthenticator.allow_all = True
c.OAuthenticator.auto_login = True
c.OAuthenticator.logout_redirect_url = "{_end_session(at, "/")}"
# Groups of the policy are groups of the hub: roles (c.JupyterHub.load_roles) can be given to them.
c.Authenticator.manage_groups = True
c.OAuthenticator.auth_state_groups_key = "oauth_user.groups"
"""


def _argocd(at: Values) -> str:
    return f"""# ConfigMap argocd-cm
data:
  url: {at.url}
  oidc.config: |
    name: doorward
    issuer: {at.issuer}
    clientID: {at.client_id}
    clientSecret: {at.secret}
    requestedScopes: [openid, profile, email, groups]
    enableUserInfoGroups: true
    userInfoPath: /userinfo
    logoutURL: {at.issuer}/end_session?id_token_hint={{{{token}}}}&post_logout_redirect_uri={{{{logoutRedirectURL}}}}
"""


def _vault(at: Values) -> str:
    return f"""vault auth enable oidc
vault write auth/oidc/config oidc_discovery_url="{at.issuer}" \\
  oidc_client_id="{at.client_id}" oidc_client_secret="{at.secret}" default_role="people"
vault write auth/oidc/role/people user_claim="sub" oidc_scopes="profile,email,groups" \\
  allowed_redirect_uris="{at.url}/ui/vault/auth/oidc/oidc/callback" \\
  allowed_redirect_uris="http://localhost:8250/oidc/callback" token_policies="default"
"""


def _nginx(at: Values) -> str:
    return f"""# oauth2-proxy.cfg; give cookie_secret 32 random bytes: openssl rand -base64 32 | tr -- '+/' '-_'
provider = "oidc"
oidc_issuer_url = "{at.issuer}"
client_id = "{at.client_id}"
client_secret = "{at.secret}"
redirect_url = "{at.url}/oauth2/callback"
scope = "openid profile email groups"
code_challenge_method = "S256"
email_domains = ["*"]
skip_provider_button = true
set_xauthrequest = true
reverse_proxy = true
# People sign out at {at.url}/oauth2/sign_out?rd={quote(_end_session(at, "/"), safe="")}
whitelist_domains = ["{at.issuer.removeprefix("https://").partition("/")[0]}"]

# nginx, in the server of the program
location /oauth2/ {{ proxy_pass http://127.0.0.1:4180; proxy_set_header Host $host; }}
location = /oauth2/auth {{
    internal;
    proxy_pass http://127.0.0.1:4180;
    proxy_pass_request_body off;
    proxy_set_header Content-Length "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-Uri $request_uri;
}}
# and in the location of the program
auth_request /oauth2/auth;
error_page 401 = /oauth2/sign_in;
"""


def _mcp(at: Values) -> str:
    scopes = ", ".join(f'"{one}"' for one in at.scopes or ("openid",))
    return f"""# For the MCP client: this server has an authorization server of its own.
server address:  {at.url}
client id:       {at.client_id}
(no secret; the client uses PKCE, and is answered on a loopback address)
# For the MCP server: its protected resource metadata says
{{"resource": "{at.url}", "authorization_servers": ["{at.issuer}"], "scopes_supported": [{scopes}]}}
# and a token is good where its signature is one of {at.issuer}/.well-known/jwks.json,
# "typ" is "at+jwt", "iss" is "{at.issuer}" and "aud" is "{at.url}".
"""


PRESETS: dict[Name, Preset] = {
    "grafana": Preset(("/login/generic_oauth",), _grafana, left=("/login",)),
    "proxmox": Preset(("",), _proxmox),
    "gitea": Preset(("/user/oauth2/doorward/callback",), _gitea),
    "open-webui": Preset(("/oauth/oidc/callback",), _open_webui, left=("",)),
    "jupyterhub": Preset(("/hub/oauth_callback",), _jupyterhub, left=("/",)),
    "argocd": Preset(("/auth/callback",), _argocd, left=("", "/")),
    "vault": Preset(("/ui/vault/auth/oidc/oidc/callback", "http://localhost:8250/oidc/callback"), _vault),
    "nginx": Preset(("/oauth2/callback",), _nginx, left=("/",)),
    "mcp": Preset(
        ("http://127.0.0.1/callback", "http://localhost/callback"), _mcp, public=True, is_resource=True
    ),
}


def plain(at: Values) -> str:
    """For every other program."""
    return f"""issuer:         {at.issuer}
client id:      {at.client_id}
client secret:  {at.secret or "(none; the program uses PKCE)"}
discovery:      {at.issuer}/.well-known/openid-configuration
"""
