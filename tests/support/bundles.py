"""A bundle of pages that is no more than names."""

import json
from pathlib import Path

MANIFEST = {
    "_shared-aaaa.js": {
        "file": "assets/shared-aaaa.js",
        "name": "shared",
        "css": ["assets/shared-bbbb.css"],
        "assets": ["assets/inter-latin-wght-normal-cccc.woff2", "assets/other-dddd.woff2"],
    },
    "web/src/console/page.tsx": {
        "file": "assets/console-eeee.js",
        "src": "web/src/console/page.tsx",
        "isEntry": True,
        "imports": ["_shared-aaaa.js"],
        "css": ["assets/console-ffff.css"],
    },
    "web/src/terminal/page.tsx": {
        "file": "assets/terminal-0000.js",
        "src": "web/src/terminal/page.tsx",
        "isEntry": True,
        "imports": ["_shared-aaaa.js"],
        "dynamicImports": ["_shared-aaaa.js"],
    },
}


def make_bundle(at: Path) -> Path:
    """A folder as Vite leaves it, with a file beside it that is nobody's business."""
    folder = at / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / ".vite").mkdir()
    (folder / ".vite" / "manifest.json").write_text(json.dumps(MANIFEST))
    for name in (
        "shared-aaaa.js",
        "shared-aaaa.js.br",
        "shared-aaaa.js.gz",
        "shared-bbbb.css",
        "console-eeee.js",
        "console-ffff.css",
        "terminal-0000.js",
        "inter-latin-wght-normal-cccc.woff2",
        "other-dddd.woff2",
        "strange.exe",
    ):
        (folder / "assets" / name).write_text(f"this is {name}")
    (at / "secret.js").write_text("nobody's business")
    return folder
