"""
What may be taken out of a record: the built-in rules, and those that a person may write.

Pure, but for the environment variable that holds a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from .errors import ConfigError

__all__ = ["BUILT_IN", "DEFAULT_RULES", "MARKS", "Rule", "rules_of"]

DEFAULT_RULES: Final = ("secrets",)
ACTIONS: Final = ("replace", "drop", "hmac")
_RULE_KEYS: Final = ("rule", "pattern", "path", "name", "action", "key_env")
MARKS: Final = ("[redacted:", "hmac-sha256:")
_HMAC_DIGITS: Final = 32  # of 64: 128 bits tell a billion users apart

# --- what a secret looks like ------------------------------------------------------------------------------------

# Keys of the known providers.  What stands before must not go on to the left: "risk-management" has an "sk-" in it.
# A look ahead ends where the next key may begin, and gives nothing back: "sk-sk-..." must not cost its length squared.
_KEYS: Final = (
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?=[A-Za-z]*+(?:[_-](?!sk-)[A-Za-z]*+)*+\d)"  # OpenAI, Anthropic, DeepSeek, Moonshot, DashScope, ...
    r"[A-Za-z0-9_-]{16,}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}"  # Stripe
    r"|AIza[A-Za-z0-9_-]{30,}"  # Google
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AKID[A-Za-z0-9]{16,}|LTAI[A-Za-z0-9]{15,}|ALTAK-[A-Za-z0-9-]{16,}"  # clouds
    r"|(?:gsk|hf|r8|ghp|gho|ghu|ghs|ghr|github_pat|npm)_[A-Za-z0-9_]{16,}"
    r"|(?:xai|pplx|nvapi|glpat|xox[abeprs]|fw|tgp_v1)-[A-Za-z0-9_-]{16,}"
    r"|[0-9a-f]{32}\.[A-Za-z0-9]{16}(?![A-Za-z0-9])"  # Zhipu
    r"|eyJ(?=[A-Za-z0-9_-]{16})[A-Za-z0-9]*+(?:[_-](?!eyJ)[A-Za-z0-9]*+)*+"  # a JSON web token ...
    r"\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}"
    r")"
)
_BEARER: Final = r"(?i)(?<=\bbearer )[A-Za-z0-9_-]{19,}[A-Za-z0-9._~+/=-]*"
_BASIC: Final = r"(?<=\b[Bb]asic )(?=[A-Za-z]*[0-9])[A-Za-z0-9_-]{19,}[A-Za-z0-9+/=]*"
_PRIVATE_KEY: Final = r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_IN_URL: Final = r"(?<=://)[^\s/?#:@]*:([^\s/?#@]+)(?=@)"
_URL_PARAMETER: Final = (
    r"(?i)[?&](?:api[_-]?key|key|access[_-]?token|token|client[_-]?secret|secret|password|sig|signature)=([^&#\s\"']+)"
)
_EMAIL: Final = r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"
_PHONE: Final = (
    r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d(?:[- ]?\d{4}){2}(?![\d.])"  # a Chinese mobile number
    r"|(?<![\d.])\+\d{1,3}(?:[-. ]?\(?\d{2,4}\)?){2,4}(?!\d)"  # any other with its country
)
_CHINESE_ID: Final = (
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:18|19|20)\d{2}(?:0\d|1[0-2])(?:[0-2]\d|3[01])\d{3}[\dXx](?![0-9A-Za-z])"
)
_ID_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

# A value under such a name is a secret whatever it looks like; names are compared in small letters, without - and _.
_SECRET_NAMES: Final = frozenset({
    "apikey", "xapikey", "xgoogapikey", "authorization", "proxyauthorization", "password", "passwd", "secret",
    "clientsecret", "secretkey", "accesskey", "secretaccesskey", "awssecretaccesskey", "accesstoken", "refreshtoken",
    "authtoken", "bearertoken", "privatekey", "cookie", "setcookie", "openaiapikey", "anthropicapikey",
})  # fmt: skip


def _is_chinese_id(text: str) -> bool:
    """Check the last digit, so that an order's number is not taken for a person's."""
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, text, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


@dataclass(frozen=True, slots=True)
class Rule:
    """
    What to take out, and what to leave in its place.

    Attributes:
        name: As it stands in ``redacted``.
        patterns: Regular expressions, each with the number of the group that is taken out, 0 for all of it. They are
            compiled when the first record comes that may have something in it: that takes milliseconds.
        path: Keys joined by points, ``*`` for any; the value there is taken out whole. Empty: nowhere.
        names: Keys, at any depth, whose values are taken out whole: in small letters, without ``-`` and ``_``.
        is_right: Asked about each match.
        action: ``replace``, ``drop`` or ``hmac``.
        key: For ``hmac``.
    """

    name: str
    patterns: tuple[tuple[str, int], ...] = ()
    path: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    is_right: Callable[[str], bool] | None = None
    action: str = "replace"
    key: bytes = b""

    def instead_of(self, text: str) -> str:
        """Return what to write where *text* stood."""
        if self.action == "drop":
            return ""
        if self.action == "hmac":
            import hmac  # milliseconds that only those pay who ask for it

            # The same text gives the same name, so that one user's records can still be told from another's.
            return f"hmac-sha256:{hmac.new(self.key, text.encode(), 'sha256').hexdigest()[:_HMAC_DIGITS]}"
        return f"[redacted:{self.name}]"


BUILT_IN: Final[Mapping[str, Rule]] = {
    rule.name: rule
    for rule in (
        Rule(
            "secrets",
            (
                (_PRIVATE_KEY, 0), (_IN_URL, 1), (_URL_PARAMETER, 1), (_BEARER, 0), (_BASIC, 0), (_KEYS, 0),
            ),
            names=_SECRET_NAMES,
        ),
        Rule("email", ((_EMAIL, 0),)),
        Rule("phone", ((_PHONE, 0),)),
        Rule("chinese_id", ((_CHINESE_ID, 0),), is_right=_is_chinese_id),
    )
}  # fmt: skip


# --- what a person may write -------------------------------------------------------------------------------------


def rules_of(option: Any) -> tuple[Rule, ...]:
    """
    Return the rules that the option ``redact`` asks for.

    Args:
        option: None for the default, ``secrets``; false or an empty list for none; a rule's name; or a list of
            names and mappings. A mapping has ``rule`` (a built-in one), ``pattern`` (a regular expression) or ``path``
            (keys joined by points, ``*`` for any), and may have ``name``, ``action`` (``replace``, ``drop``, ``hmac``)
            and ``key_env``, the environment variable that holds the key for ``hmac``.

    Raises:
        ConfigError: It asks for something else; the text names what.
    """
    if option is None:
        option = DEFAULT_RULES
    if option is False:
        return ()
    if isinstance(option, (str, Mapping)):
        option = [option]
    if not isinstance(option, Sequence):
        raise _complaint("a list of rules, or false for none", option)
    return tuple(_rule_of(one) for one in option)


def _rule_of(given: Any) -> Rule:
    if isinstance(given, Rule):  # options that were checked before
        return given
    if isinstance(given, str):
        return _built_in(given)
    if not isinstance(given, Mapping):
        raise _complaint(f"the name of a rule ({', '.join(BUILT_IN)}) or a mapping", given)
    for key in given:
        if key not in _RULE_KEYS:
            hint = _nearest(key, _RULE_KEYS) or f"a rule has {', '.join(_RULE_KEYS)}"
            raise ConfigError(f"a rule of redact has no {key!r}: {hint}", "redact")
    kinds = [kind for kind in _KINDS if kind in given]
    if len(kinds) != 1:
        raise _complaint(f"a rule with one of {', '.join(_KINDS)}", given)
    rule = _KINDS[kinds[0]](given[kinds[0]])
    action = given.get("action", "replace")
    if action not in ACTIONS:
        raise _complaint(f"a rule whose action is one of {', '.join(ACTIONS)}", given)
    key = _key_of(given) if action == "hmac" else b""
    return replace(rule, name=str(given.get("name", rule.name)), action=action, key=key)


def _built_in(name: object) -> Rule:
    if name in BUILT_IN:
        return BUILT_IN[name]  # type: ignore[index]  # it is one of its keys
    hint = _nearest(name, BUILT_IN) or f"there are {', '.join(BUILT_IN)}"
    raise ConfigError(f"redact has no rule {name!r}: {hint}", "redact")


def _nearest(name: object, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # 3 ms that only a mistake is worth

    near = get_close_matches(str(name), list(names), n=1)
    return f"did you mean {near[0]}?" if near else ""


def _by_pattern(pattern: object) -> Rule:
    try:
        compiled = re.compile(pattern)  # type: ignore[call-overload]  # finding that out is the point
    except (re.error, TypeError) as error:
        raise ConfigError(f"redact: {pattern!r} is no regular expression: {error}", "redact") from error
    if compiled.match(""):
        raise ConfigError(f"redact: the pattern {pattern!r} finds the empty text, so it would be everywhere", "redact")
    return Rule("pattern", ((compiled.pattern, 1 if compiled.groups else 0),))


def _by_path(path: object) -> Rule:
    parts = tuple(path.split(".")) if isinstance(path, str) else ()
    if not all(parts) or not parts:
        raise _complaint("a rule whose path is keys joined by points", path)
    return Rule(".".join(parts), path=parts)


_KINDS: Final[Mapping[str, Callable[[Any], Rule]]] = {"rule": _built_in, "pattern": _by_pattern, "path": _by_path}


def _key_of(given: Mapping[str, Any]) -> bytes:
    variable = given.get("key_env")
    if not isinstance(variable, str) or not variable:
        raise _complaint("a rule with key_env, the environment variable that holds the key for hmac", given)
    key = os.environ.get(variable, "").encode()
    if len(key) < _SHORTEST_KEY:
        raise ConfigError(
            f"redact: the environment variable {variable} must hold at least {_SHORTEST_KEY} bytes of a secret key "
            f"(python -c 'import secrets; print(secrets.token_hex())' makes one), got {len(key)}",
            "redact",
        )
    return key


_SHORTEST_KEY: Final = 16


def _complaint(allowed: str, found: object) -> ConfigError:
    return ConfigError(f"redact must be {allowed}, got {found!r}", "redact")
