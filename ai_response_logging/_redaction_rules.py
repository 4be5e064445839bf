"""
What may be taken out of a record: the built-in rules, and those that a person may write.

Pure, but for the environment variable that holds a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .errors import ConfigError

__all__ = ["BUILT_IN", "DEFAULT_RULES", "MARKS", "Rule", "rules_of"]

DEFAULT_RULES: Final = ("secrets",)
ACTIONS: Final = ("replace", "drop", "hmac")
_RULE_KEYS: Final = ("rule", "pattern", "path", "name", "action", "key_env")
MARKS: Final = ("[redacted:", "hmac-sha256:")
_HMAC_DIGITS: Final = 32  # of 64: 128 bits tell a billion users apart

# --- what a secret looks like ------------------------------------------------------------------------------------

# Where a key may begin: not inside a word ("risk-management" has an "sk-" in it), but behind an escape of JSON in a
# text, as tools' arguments are ("\nsk-...").
_BEGIN: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
# What only looks like a key: the words of a link ("sk-ii-facial-treatment-essence-230ml"). Bounded, so that a text of
# nothing but beginnings costs no more than its length.
_WORD: Final = r"(?:(?:[A-Z]?[a-z]{1,24}|[A-Z]{1,5})(?:\d{1,3}[a-z]?)?|\d{1,4}[a-z]{0,4})"
_NO_WORDS: Final = rf"(?!{_WORD}(?:-{_WORD}){{1,15}}(?![A-Za-z0-9_-]))"
# Keys of the known providers.
_KEYS: Final = (
    rf"{_BEGIN}(?:"
    rf"sk-(?=[A-Za-z_-]{{0,79}}+\d){_NO_WORDS}[A-Za-z0-9_-]{{16,}}"  # OpenAI, Anthropic, DeepSeek, Moonshot, ...
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}"  # Stripe
    r"|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{19,}"  # Google
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AKID[A-Za-z0-9]{16,}|LTAI[A-Za-z0-9]{15,}|ALTAK-[A-Za-z0-9-]{16,}"
    r"|(?:gsk|hf|r8|ghp|gho|ghu|ghs|ghr|npm)_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}"
    rf"|(?:xai|pplx|nvapi|glpat|xox[abeprs]|fw|tgp_v1)-{_NO_WORDS}[A-Za-z0-9_-]{{16,}}"
    r"|[0-9a-f]{32}\.[A-Za-z0-9]{16}(?![A-Za-z0-9])"  # Zhipu
    # A JSON web token; it ends where another begins, for the same bound.
    r"|eyJ(?:[A-Za-z0-9]|[_-](?!eyJ)){16,}+\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r")"
)
# What stands in a secret's place in a program or a manual: {password}, ${TOKEN}, <key>, %s, ***, YOUR_API_KEY.
_STAND_IN: Final = (
    r"(?:\$?\{[^\s{}]*\}|\$[A-Z_]+|<[^\s<>]*>|%[sr]|\*+|\.{3}|(?i:your|my)[_-](?i:[a-z]+[_-])*(?i:key|token|secret|password)"
    r"(?i:[_-]here)?|(?:[A-Z]+_)*(?:KEY|TOKEN|SECRET|PASSWORD)|password)"
)
_BEARER: Final = (
    rf"(?i:(?<=\bbearer )|(?<=\\[nrt]bearer ))(?!{_STAND_IN}(?![\w.~+/=-]))[A-Za-z0-9_-]{{19,}}[A-Za-z0-9._~+/=-]*"
)
_BASIC: Final = r"(?:(?<=\b[Bb]asic )|(?<=\\[nrt][Bb]asic ))(?=[A-Za-z]*[0-9])[A-Za-z0-9_-]{19,}[A-Za-z0-9+/=]*"
# With its end: all up to there that may stand in a program's text; without: the lines of base64 only, since what
# follows may be an answer of many pages that has only mentioned how a key begins.
_PRIVATE_KEY: Final = (
    r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:[\s -,.-_a-z{-~]++|-(?!-))*+-----END [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:(?:[ \t]*(?:\r?\n|\\[nrt]|[\"'+]))*+(?:[ \t]*[A-Z][A-Za-z-]+: [^\s\\]+(?=\s|\\)|[ \t]*[A-Za-z0-9+/=]+))*+)"
)
# As far as a URL goes: neither quotes nor the text of another script that follows without a blank.
_URL_TEXT: Final = r"\s/?#@\"<>`\\\u0080-\U0010ffff"
_IN_URL: Final = (
    rf"(?<=://)[^:{_URL_TEXT}]*:(?!{_STAND_IN}@|\d{{1,5}}[,;|)\]}}'])"
    rf"([^{_URL_TEXT}]+(?:@[^,;|&(){_URL_TEXT}]+)*)(?=@)"
)
_URL_PARAMETER: Final = (
    r"(?:(?<![\s(,])[?&]|&amp;|\\u0026)(?ai:(?:x-)?api[_-]?key|key|subscription-key|(?:access|auth|refresh|id|x-amz-security)[_-]?token"
    r"|token|client[_-]?secret|secret|password|passwd|pwd|sig|(?:x-(?:amz|goog)-)?signature)="
    # Not what somebody looked for on a page, in another script.
    rf"(?!{_STAND_IN}(?![\w.~%+/=-])|%[Ee][2-9A-Fa-f])([A-Za-z0-9._~%+/=!:@-]+)"
)
_EMAIL: Final = r"[A-Za-z0-9._%+-]{1,64}@(?![1-4]x\.)(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"
_PHONE: Final = (
    # A Chinese mobile number; no part of a longer number, of a decimal one or of a name.
    r"(?<![A-Za-z0-9_])(?<!\d\.)(?:\+?86[- ]?)?1[3-9]\d(?:[- ]?\d{4}){2}(?![A-Za-z0-9_]|\.\d)"
    # Any other with its country: no sum in a program.
    r"|(?<![A-Za-z0-9_.)\]])\+(?=(?:[-. ()]{0,2}\d){8})\d{1,3}(?:[-. ]{0,2}\(?\d{2,4}\)?){2,4}(?!\d)"
)
_CHINESE_ID: Final = (
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:18|19|20)\d{2}(?:0\d|1[0-2])(?:[0-2]\d|3[01])\d{3}[\dXx](?![0-9A-Za-z])"
)
_ID_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

# A value under such a name is a secret whatever it looks like; names are compared in small letters, without - and _.
_SECRET_NAMES: Final = frozenset({
    "apikey", "xapikey", "xgoogapikey", "authorization", "proxyauthorization", "password", "passwd", "secret",
    "clientsecret", "secretkey", "accesskey", "secretaccesskey", "awssecretaccesskey", "accesstoken", "refreshtoken",
    "authtoken", "bearertoken", "privatekey", "cookie", "setcookie", "ocpapimsubscriptionkey",
})  # fmt: skip
_SECRET_ENDINGS: Final = ("apikey",)  # DEEPSEEK_API_KEY, ...


def _is_chinese_id(text: str) -> bool:
    """Check the last digit, so that an order's number is not taken for a person's."""
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, text, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


class Rule(NamedTuple):
    """
    What to take out, and what to leave in its place.

    Attributes:
        name: As it stands in ``redacted``.
        patterns: Regular expressions, each with the number of the group that is taken out, 0 for all of it. They are
            compiled when the first record comes that may have something in it: that takes milliseconds.
        path: Keys joined by points, ``*`` for any; the value there is taken out whole. Empty: nowhere.
        names: Keys, at any depth, whose values are taken out whole: in small letters, without ``-`` and ``_``.
        endings: Those that end so are such names as well.
        is_right: Asked about each match.
        action: ``replace``, ``drop`` or ``hmac``.
        key: For ``hmac``.
    """

    name: str
    patterns: tuple[tuple[str, int], ...] = ()
    path: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    endings: tuple[str, ...] = ()
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
            endings=_SECRET_ENDINGS,
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
    if isinstance(option, Rule) or not isinstance(option, Sequence):
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
    return rule._replace(name=str(given.get("name", rule.name)), action=action, key=key)


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
