import tomllib
from configparser import ConfigParser

import pytest

from doorward.cli.app_presets import PRESETS, Name, Values, plain, program_url, redirects
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
    assert "{{" not in text.replace("{{resource", "")


def test_settings_are_in_their_programs_own_form() -> None:
    grafana = ConfigParser(interpolation=None)
    grafana.read_string(PRESETS["grafana"].settings(AT))
    assert grafana["auth.generic_oauth"]["token_url"] == "https://door.example.com/token"
    proxy = tomllib.loads(PRESETS["nginx"].settings(AT).partition("# nginx")[0])
    assert proxy["oidc_issuer_url"] == AT.issuer
    compile(PRESETS["jupyterhub"].settings(AT), "jupyterhub_config.py", "exec")


def test_a_program_has_an_address() -> None:
    assert program_url("https://app.example.com/") == AT.url
    assert redirects(PRESETS["proxmox"], AT.url) == (AT.url,)
    for url in ("", "app.example.com", "http://app.example.com"):
        with pytest.raises(BadInput):
            program_url(url)
    assert "none" in plain(AT._replace(secret=""))
