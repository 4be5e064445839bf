"""``{brandName}`` and ``{competitorBrand}`` in questions: found, checked, filled in; pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from ..errors import ConfigError

FIELDS: Final[Mapping[str, str]] = {"brandName": "brand", "competitorBrand": "competitors"}
"""Each placeholder, and the key of a plan or question that fills it in."""

# A name in braces, doubled or not.  All other braces, as of JSON in a prompt, are text.
_BRACED: Final = re.compile(r"\{\{(?P<text>[^\W\d]\w*)\}\}|\{(?P<name>[^\W\d]\w*)\}")


def filled(template: str, values: Mapping[str, str | None], *, where: str) -> str:
    """
    Return *template* with its placeholders filled in, once: what a value holds is text.

    ``{{name}}`` becomes the text ``{name}``.

    Args:
        template: A question or a system message.
        values: What each placeholder stands for; None where the plan does not say.
        where: Named in errors.

    Raises:
        ConfigError: It has a placeholder that there is not, or one that nothing fills in.
    """
    if "{" not in template:
        return template

    def value_of(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return f"{{{found['text']}}}"
        if name not in FIELDS:
            raise ConfigError(_unknown(name), where)
        value = values.get(name)
        if value is None:
            raise ConfigError(f"{{{name}}} cannot be filled in: {FIELDS[name]} is not set", where)
        return value

    return _BRACED.sub(value_of, template)


def _unknown(name: str) -> str:
    lower = {known.lower(): known for known in FIELDS}
    near = difflib.get_close_matches(name.lower().replace("_", ""), [*lower, "brand", "competitor"], n=1)
    known = {"brand": "brandName", "competitor": "competitorBrand", **lower}.get(near[0]) if near else None
    hint = f"did you mean {{{known}}}? " if known else ""
    return (
        f"{{{name}}} is no placeholder; {hint}There are {', '.join(f'{{{known}}}' for known in FIELDS)}; "
        f"write {{{{{name}}}}} for the text {{{name}}}, or set placeholders: false to send all braces as they stand"
    )
