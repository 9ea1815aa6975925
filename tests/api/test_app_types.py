import msgspec
import pytest

from doorward.api.app_types import NewApp


def test_a_new_app_is_confidential_and_may_do_nothing_more_than_sign_people_in() -> None:
    made = msgspec.json.decode(b'{"name": "grafana"}', type=NewApp)
    said = (made.public, made.asks, made.service, made.device, made.keys, made.keys_url)
    assert said == (False, False, False, False, "", "")


@pytest.mark.parametrize(
    "body", [b"{}", b'{"name": "a", "devices": true}', b'{"name": "a", "algorithm": "none"}']
)
def test_what_is_no_app(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=NewApp)
