import re
import tomllib
from configparser import ConfigParser
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from doorward.cli.app_presets import PRESETS, Name, Values, plain, program_url, redirects, signed_out
from doorward.errors import BadInput
from doorward.login.redirects import check_redirect

AT = Values("app", "https://app.example.com", "https://door.example.com", "app-id", "dwapp-secret")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete(name: Name) -> None:
    preset = PRESETS[name]
    text = preset.settings(AT)
    for uri in redirects(preset, AT.url):
        check_redirect(uri, public=preset.public)
    for value in (AT.issuer, AT.client_id, *(() if preset.public else (AT.secret,))):
        assert value in text
    assert "\\\\" not in text
    assert "{{" not in text.replace("{{token}}", "").replace("{{logoutRedirectURL}}", "")
    for uri in signed_out(preset, AT.url):
        check_redirect(uri, public=preset.public)


def test_settings_are_in_their_programs_own_form() -> None:
    grafana = ConfigParser(interpolation=None)
    grafana.read_string(PRESETS["grafana"].settings(AT))
    assert grafana["auth.generic_oauth"]["token_url"] == "https://door.example.com/token"
    proxy = tomllib.loads(PRESETS["nginx"].settings(AT).partition("# nginx")[0])
    assert proxy["oidc_issuer_url"] == AT.issuer
    compile(PRESETS["jupyterhub"].settings(AT), "jupyterhub_config.py", "exec")


def test_who_signs_out_comes_back_to_where_the_app_may_have_them_sent() -> None:
    """What a program sends along as the way back is compared sign by sign with what the app was made with."""
    room: dict[str, Any] = {"c": MagicMock()}
    exec(PRESETS["jupyterhub"].settings(AT), room)
    grafana = ConfigParser(interpolation=None)
    grafana.read_string(PRESETS["grafana"].settings(AT))
    proxy = PRESETS["nginx"].settings(AT)
    (link,) = re.findall(r"sign_out\?rd=(\S+)", proxy)
    assert tomllib.loads(proxy.partition("# nginx")[0])["whitelist_domains"] == ["door.example.com"]
    ways: tuple[tuple[Name, str], ...] = (
        ("jupyterhub", room["c"].OAuthenticator.logout_redirect_url),
        ("grafana", grafana["auth.generic_oauth"]["signout_redirect_url"]),
        ("nginx", unquote(link)),
    )
    for name, url in ways:
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://door.example.com/end_session"
        said = dict(parse_qsl(parts.query, strict_parsing=True))
        assert said["client_id"] == AT.client_id
        assert said["post_logout_redirect_uri"] in signed_out(PRESETS[name], AT.url)
    assert "WEBUI_AUTH_SIGNOUT_REDIRECT_URL=https://app.example.com\n" in PRESETS["open-webui"].settings(AT)
    assert signed_out(PRESETS["open-webui"], AT.url) == (AT.url,)
    assert signed_out(PRESETS["vault"], AT.url) == ()


def test_a_program_has_an_address() -> None:
    assert program_url("https://app.example.com/") == AT.url
    assert redirects(PRESETS["proxmox"], AT.url) == (AT.url,)
    for url in ("", "app.example.com", "http://app.example.com"):
        with pytest.raises(BadInput):
            program_url(url)
    assert "none" in plain(AT._replace(secret=""))
