"""
One HTML page from its parts: template, style, scripts and data; pure but for reading the parts from the package.

Answers are untrusted. They stand in a data block that nothing in them can end, reach the document as text nodes only,
and a Content-Security-Policy lets no script run but the page's own, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

__all__ = ["data_block", "page_of"]

_SCRIPTS: Final = ("text.js", "charts.js", "matrix.js", "calls.js", "report.js")
_PLACE: Final = re.compile(r"\{\{(\w+)\}\}")
_UNSAFE: Final = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def data_block(data: Mapping[str, Any]) -> str:
    """
    Return *data* as JSON that may stand in a `<script>` element.

    No end tag, comment or reference can be in it, nor a line separator; half a surrogate pair stays what it is, as an
    escape, for it has no UTF-8.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def page_of(data: Mapping[str, Any], *, title: str) -> str:
    """Return the page; its texts have no half surrogate pairs, so it can be written as UTF-8."""
    style = _part("page", "report.css")
    charts = _part("echarts", "echarts.common.min.js")
    script = "\n".join(_part("page", name) for name in _SCRIPTS)
    parts = {
        # Attributes may hold style, for that is how SVG is drawn; they can fetch nothing.
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; style-src-attr 'unsafe-inline'; "
        f"style-src-elem {_hash(style)}; script-src {_hash(charts)} {_hash(script)}; "
        "require-trusted-types-for 'script'; trusted-types default",
        "title": html.escape(title.encode("utf-8", "replace").decode()),
        "style": style,
        "charts": charts,
        "script": script,
        "data": data_block(data),
    }
    # In one go: what stands in a text and looks like a place is none.
    return _PLACE.sub(lambda found: parts[found[1]], _part("page", "report.html"))


def _part(folder: str, name: str) -> str:
    return (files(__package__) / folder / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
