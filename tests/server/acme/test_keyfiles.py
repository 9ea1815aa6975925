"""Keys in files of an operator's: every form that tools write, and nothing of a secret in any refusal."""

from pathlib import Path

import pytest

from doorward.server.acme.faults import AcmeError
from doorward.server.acme.keyfiles import account_key, tsig_key


@pytest.mark.parametrize(
    "text",
    [
        'key "doorward" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0";\n};\n',
        "key doorward { algorithm hmac-sha256; secret c2VjcmV0; };",
        "# hmac-sha256:doorward:c2VjcmV0\nkey:\n  - id: doorward\n",
        "hmac-sha256:doorward:c2VjcmV0",
    ],
)
def test_a_key_in_each_form_that_tools_write(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    key = tsig_key(file)
    assert tuple(key) == ("doorward", "hmac-sha256", "c2VjcmV0")
    assert "c2VjcmV0" not in repr(key)


def test_a_key_that_is_none_or_everybody_s_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(AcmeError, match="cannot be read"):
        tsig_key(file)
    with pytest.raises(AcmeError, match="cannot be read"):
        tsig_key(tmp_path)
    file.write_bytes(b"\xffc2VjcmV0")
    file.chmod(0o600)
    with pytest.raises(AcmeError, match="no TSIG key") as refused:
        tsig_key(file)
    assert "c2VjcmV0" not in str(refused.value.public())
    file.chmod(0o644)
    with pytest.raises(AcmeError, match="anybody may read"):
        tsig_key(file)


def test_an_account_s_key_as_authorities_give_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for text in ("zWNDZM6eQGHWpSRTPal5eIUYFTu7_-", "zWNDZM6eQGHWpSRTPal5eIUYFTu7_-==\n"):
        file.write_text(text)
        file.chmod(0o640)
        assert account_key(file) == "zWNDZM6eQGHWpSRTPal5eIUYFTu7_-"
    for bad in ("", "short", "has spaces in the middle of it", "+/standard+base64+/+/", "zWNDZM6eQGHWpSRTP"):
        file.write_text(bad)
        with pytest.raises(AcmeError, match="no account's key") as refused:
            account_key(file)
        assert not bad or bad not in str(refused.value.public())
        assert not refused.value.counts
    file.chmod(0o604)
    with pytest.raises(AcmeError, match="anybody may read"):
        account_key(file)
