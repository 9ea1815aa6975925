"""``doorward ca``: makes the authority once, prints it, and keeps the key to itself."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.scripts import run_captured


def test_it_is_made_once_and_printed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    code, out, err = run_captured(["ca", "--data-dir", str(folder)])
    assert (code, err) == (0, [])
    certificate = x509.load_pem_x509_certificate("\n".join(out).encode())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert run_captured(["ca", "--data-dir", str(folder)]) == (0, out, [])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not any(path.stat().st_mode & 0o077 for path in folder.rglob("*.key"))


def test_somebody_else_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    code, out, err = run_captured(["ca", "--data-dir", str(tmp_path / "theirs")])
    assert (code, out) == (1, [])
    assert "somebody else's data directory" in err[0]
