import os
from pathlib import Path

import pytest

from doorward.console.bundle import STATIC, Bundle, BundleMissing, Bundles

CONSOLE = "web/src/console/page.tsx"
ALL = frozenset({"br", "gzip"})


def test_a_page_loads_its_chunks_with_their_styles_and_one_font(bundle: Path) -> None:
    needs = Bundle(bundle).needs(CONSOLE)
    assert needs.script == "assets/console-eeee.js"
    assert needs.modules == ("assets/shared-aaaa.js",)
    assert needs.styles == ("assets/shared-bbbb.css", "assets/console-ffff.css")  # the page's own win
    assert needs.fonts == ("assets/inter-latin-wght-normal-cccc.woff2",)


def test_a_file_comes_in_the_best_coding_that_is_there_and_taken(bundle: Path) -> None:
    made = Bundle(bundle)
    found = [made.asset("shared-aaaa.js", taken) for taken in (ALL, frozenset({"gzip"}), frozenset[str]())]
    assert [(one.coding, one.content) for one in found if one] == [
        ("br", b"this is shared-aaaa.js.br"),
        ("gzip", b"this is shared-aaaa.js.gz"),
        ("", b"this is shared-aaaa.js"),
    ]
    plain = made.asset("console-ffff.css", ALL)
    assert plain is not None
    assert (plain.coding, plain.kind) == ("", "text/css; charset=utf-8")


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "../secret.js",
        "..%2fsecret.js",
        "../.vite/manifest.json",
        ".",
        "",
        "/etc/passwd",
        "strange.exe",
        "shared-aaaa.js.br",
    ],
)
def test_no_other_name_is_a_file(bundle: Path, name: str) -> None:
    assert Bundle(bundle).asset(name, ALL) is None


def test_what_was_not_built_says_how_to_build_it(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match="not built") as caught:
        Bundles(tmp_path / "nowhere").current()
    assert "make web-build" in caught.value.cure
    with pytest.raises(BundleMissing, match="built without"):
        Bundle(bundle).needs("web/src/other.tsx")
    (bundle / ".vite" / "manifest.json").write_text("[]")
    with pytest.raises(BundleMissing) as caught:
        Bundle(bundle)
    assert str(bundle) not in str(caught.value.public())


def test_a_new_build_is_seen(bundle: Path) -> None:
    bundles = Bundles(bundle)
    first = bundles.current()
    assert bundles.current() is first
    manifest = bundle / ".vite" / "manifest.json"
    os.utime(manifest, ns=(1, manifest.stat().st_mtime_ns + 1_000_000_000))
    assert bundles.current() is not first


def test_the_bundle_is_where_the_build_puts_it() -> None:
    assert STATIC.parts[-3:] == ("doorward", "console", "static")
