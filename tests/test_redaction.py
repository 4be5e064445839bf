"""What is taken out of a record, and what is left: :mod:`ai_response_logging.redaction`."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging import redaction
from ai_response_logging._redaction_rules import BUILT_IN, rules_of
from ai_response_logging.errors import ConfigError
from ai_response_logging.redaction import MAX_NAMED, Redactor

DIGITS = "0123456789abcdef0123456789ABCDEF"
# One of each kind, none of them real; the name says whose.
SECRETS = {
    "openai": f"sk-proj-{DIGITS}_x",
    "anthropic": f"sk-ant-api03-{DIGITS}",
    "deepseek": f"sk-{DIGITS.lower()}",
    "openrouter": f"sk-or-v1-{DIGITS}",
    "stripe": f"sk_live_{DIGITS}",
    "google": f"AIza{DIGITS}abc",
    "aws": "AKIA" + "ABCDEFGHIJ123456",
    "tencent": "AKID" + "a1B2c3D4e5F6g7H8i9",
    "aliyun": "LTAI" + "5tABCDEFGHIJKLMN",
    "groq": f"gsk_{DIGITS}",
    "hugging face": f"hf_{DIGITS}",
    "github": f"ghp_{DIGITS}abcd",
    "github fine": f"github_pat_{DIGITS}_{DIGITS}",
    "xai": f"xai-{DIGITS}",
    "nvidia": f"nvapi-{DIGITS}",
    "slack": f"xoxb-123456789012-{DIGITS}",
    "zhipu": f"{DIGITS.lower()}.aBcDeFgHiJkLmNoP",
    "token": f"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{DIGITS}",
}
AROUND = (
    "{}",
    "key={}",
    "Incorrect API key provided: {}.",
    "密钥：{}。",
    "Bearer {}",
    '{{"a": "{}"}}',
    "\n{}\n",
    "x-{}",
)


def suspects(redactor: Redactor, fields: dict[str, Any]) -> bool:
    """Give *fields* the quick look, as the formatter does."""
    below, waiting = [], list(fields.values())
    while waiting:
        if isinstance(value := waiting.pop(), dict):
            below.append(value)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return redactor.suspects(orjson.dumps(fields), fields, below, SimpleNamespace(all=(*fields,), harmless_to=None))


def taken(fields: dict[str, Any], *rules: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return what is left of *fields* and what was taken; the quick look must have been right about it."""
    redactor = Redactor(rules_of(list(rules) or None))
    suspected = suspects(redactor, fields)
    left = orjson.loads(orjson.dumps(fields))
    entries = redactor.redact(left)
    assert suspected or not entries
    return left, entries


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_of_the_known_providers_go(kind: str, around: str) -> None:
    """Wherever they stand in a text, and whatever stands around them, which stays."""
    if around == "x-{}" and kind == "zhipu":
        pytest.skip("this one has no sign of its own, only its shape")
    secret = SECRETS[kind]
    left, entries = taken({"error_message": around.format(secret)})
    assert secret not in left["error_message"]
    assert left["error_message"] == around.format("[redacted:secrets]")
    assert entries == [{"path": "error_message", "rule": "secrets"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://user:pa55@host/x", "GET https://user:[redacted:secrets]@host/x"),
        ("postgres://u:p@db, redis://:geheim@r", "postgres://u:[redacted:secrets]@db, redis://:[redacted:secrets]@r"),
        ("https://h/v1?key=abc&x=1", "https://h/v1?key=[redacted:secrets]&x=1"),
        ("https://h/v1?x=1&access_token=abc#top", "https://h/v1?x=1&access_token=[redacted:secrets]#top"),
        ("Authorization: Bearer abc_def-ghijklmnopqrs.tuv/=", "Authorization: Bearer [redacted:secrets]"),
        ("authorization: Basic dXNlcjpwYXNzd29yZDEyMzQ1Ng==", "authorization: Basic [redacted:secrets]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIB/+\n-----END RSA PRIVATE KEY----- end", "[redacted:secrets] end"),
        ("cut: -----BEGIN PRIVATE KEY-----\nMIIB/+\nabc", "cut: [redacted:secrets]"),
    ],
)
def test_other_secrets_go(text: str, expected: str) -> None:
    """Passwords in URLs, keys among their parameters, tokens of a header, private keys."""
    assert taken({"response": text})[0] == {"response": expected}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the task-oriented-risk-management-of-2024-and-later",
        "0b6ec1b5-6e0b-4c73-9f3a-9b2d5f1c7a11",
        "https://example.com/a?page=2&keyword=phone",
        "mail me@example.com, see https://example.com",
        "a basic understanding, a bearer of news, basic internationalization",
        "use sk-... as the key",
        "sk-learn-and-other-well-known-packages",
        "5d41402abc4b2a76b9719d911017c592",
        "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 100,
        "品牌推荐：华为、小米。" * 50,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Words, ids, links, digests and pictures are data."""
    fields = {"response": text, "execution_id": "exec_2026-01-31_0001", "metadata": {"note": text, "total_tokens": 5}}
    assert taken(fields) == (fields, [])


@pytest.mark.parametrize(
    "name", ["api_key", "API-Key", "apiKey", "x-api-key", "Authorization", "password", "set-cookie"]
)
def test_a_value_under_a_secrets_name_goes_whole(name: str) -> None:
    """At the top and at any depth, whatever it looks like."""
    mark = "[redacted:secrets]"
    assert taken({name: "geheim"}) == ({name: mark}, [{"path": name, "rule": "secrets"}])
    left, entries = taken({"raw_request": {"headers": [{name: 12345, "accept": "json"}]}})
    assert left == {"raw_request": {"headers": [{name: mark, "accept": "json"}]}}
    assert entries == [{"path": f"raw_request.headers.0.{name}", "rule": "secrets"}]


def test_names_without_a_secret_stay() -> None:
    """A yes or no, nothing, a tool's parameter that is called so, figures about tokens."""
    fields = {
        "password": "",
        "secret": None,
        "metadata": {"cookie": False, "token": "cl100k"},
        "tools": [{"properties": {"password": {"type": "string"}}}],
        "prompt_tokens": 12,
    }
    assert taken(fields) == (fields, [])


def test_keys_of_a_dict_are_looked_at_too() -> None:
    """Some applications keep figures by API key; two that become alike stay two."""
    left, entries = taken({"metadata": {SECRETS["groq"]: 1, SECRETS["xai"]: 2, "n": 3}})
    assert left == {"metadata": {"n": 3, "[redacted:secrets]": 1, "[redacted:secrets]#2": 2}}
    assert entries == [{"path": "metadata.key", "rule": "secrets"}]


@pytest.mark.parametrize("value", [{"password": "hunter22"}, SECRETS["xai"], [[SECRETS["xai"]]]], ids=str)
def test_a_key_that_is_a_secret_is_in_no_path_either(value: Any) -> None:
    """What is taken out below it is named, and it is not."""
    left, entries = taken({"usage": {SECRETS["groq"]: value}})
    assert SECRETS["groq"] not in str((left, entries))
    assert entries[0] == {"path": "usage.key", "rule": "secrets"}
    assert entries[1]["path"].startswith("usage.[redacted:secrets]")


def test_a_long_key_does_not_stand_whole_in_each_path() -> None:
    """A hundred copies of it would make a line of megabytes."""
    _, entries = taken({"usage": {"k" * 50_000: [SECRETS["groq"]] * 1000}})
    assert [len(entry["path"]) for entry in entries[:1]] == [len("usage.") + 200 + len("....0")]
    assert len(entries) == MAX_NAMED


def test_many_keys_that_become_alike_stay_as_many_and_short() -> None:
    """A number each: a mark more for each one before it would make a line of megabytes of them."""
    left, _ = taken({"metadata": {f"{SECRETS['groq']}{number}": number for number in range(2000)}})
    assert sorted(left["metadata"].values()) == list(range(2000))
    assert max(map(len, left["metadata"])) == len("[redacted:secrets]#2000")


def test_several_in_one_text_are_named_once() -> None:
    """All go; the record says where and by which rule, not how often."""
    left, entries = taken({"response": f"{SECRETS['openai']} or {SECRETS['google']}"})
    assert left == {"response": "[redacted:secrets] or [redacted:secrets]"}
    assert entries == [{"path": "response", "rule": "secrets"}]


def test_what_was_taken_is_not_listed_without_end() -> None:
    """A thousand places are all emptied; the list of them ends at a hundred."""
    left, entries = taken({"messages": [SECRETS["groq"]] * 1000})
    assert set(left["messages"]) == {"[redacted:secrets]"}
    assert len(entries) == MAX_NAMED


def test_nesting_costs_no_stack() -> None:
    """An application may log with its stack nearly full, and nest as deep as the formatter lets it."""
    value: Any = SECRETS["groq"]
    for _ in range(5000):
        value = [value]
    fields = {"metadata": value}
    assert Redactor(rules_of(None)).redact(fields) == [{"path": "metadata" + ".0" * 5000, "rule": "secrets"}]


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("email", "to Anna.B+x@mail.example.co.uk!", "to [redacted:email]!"),
        ("email", "no@one, @home, a@b", "no@one, @home, a@b"),
        ("email", "icon@2x.png", "icon@2x.png"),
        ("phone", "打 13800138000 或 138-0013-8000", "打 [redacted:phone] 或 [redacted:phone]"),
        ("phone", "+86 138 0013 8000, +1 (555) 123-4567", "[redacted:phone], [redacted:phone]"),
        ("phone", "call 13800138000. Or No.13800138000!", "call [redacted:phone]. Or No.[redacted:phone]!"),
        ("phone", "y = x+100000000, SKU13800138000B, +5 10 20", "y = x+100000000, SKU13800138000B, +5 10 20"),
        ("phone", "order 4513800138000123, 3.13800138000", "order 4513800138000123, 3.13800138000"),
        ("chinese_id", "身份证 11010519491231002X。", "身份证 [redacted:chinese_id]。"),
        ("chinese_id", "no 110105194912310021, no 110105194913310020", "no 110105194912310021, no 110105194913310020"),
    ],
)
def test_what_may_be_asked_for(rule: str, text: str, expected: str) -> None:
    """E-mail addresses, telephone numbers and Chinese identity numbers, whose last digit is checked."""
    assert taken({"question": text}, rule)[0] == {"question": expected}
    assert taken({"question": text})[0] == {"question": text}  # not unless asked


def test_rules_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By pattern (its group, where it has one), by path, with any action; the first one that wants a text has it."""
    monkeypatch.setenv("PSEUDONYM_KEY", "0123456789abcdef")
    rules = [
        {"pattern": r"card (\d{4})", "name": "card"},
        {"pattern": r"\d{4}", "action": "drop"},
        {"path": "user_id", "action": "hmac", "key_env": "PSEUDONYM_KEY"},
        {"path": "messages.*.content", "action": "drop"},
        {"rule": "email", "action": "hmac", "key_env": "PSEUDONYM_KEY"},
    ]
    fields = {
        "user_id": "anna",
        "response": "card 1234, pin 5678, a@example.com",
        "messages": [{"role": "user", "content": "x"}, {"role": "user"}],
    }
    left, entries = taken(fields, *rules)
    assert left["messages"] == [{"role": "user"}, {"role": "user"}]
    assert re.fullmatch(r"card \[redacted:card\], pin , hmac-sha256:[0-9a-f]{32}", left["response"])
    assert re.fullmatch(r"hmac-sha256:[0-9a-f]{32}", left["user_id"])
    assert {entry["rule"] for entry in entries} == {"card", "pattern", "user_id", "messages.*.content", "email"}
    again, _ = taken({"user_id": "anna", "session_id": "anna"}, *rules)
    assert again == {"user_id": left["user_id"], "session_id": "anna"}


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["sk-", "-eyJ", "_eyJ"])
def test_text_like_the_beginnings_of_many_keys_is_looked_at_once(piece: str) -> None:
    """
    Its cost grows with its length, not with its square, and a key behind it is found.

    Were it the square, this would take hours: a test that hangs is one that fails.
    """
    text = piece * (2_000_000 // len(piece))
    assert taken({"response": text}) == ({"response": text}, [])
    for kind in ("openai", "token"):
        left, entries = taken({"response": f"{text} {SECRETS[kind]}"})
        assert left == {"response": f"{text} [redacted:secrets]"}
        assert entries == [{"path": "response", "rule": "secrets"}]


@pytest.mark.parametrize(
    "text",
    [
        "sk-sk-aaaaaaaaaaaaaaaaaaaaaaaa1",
        "sk-proj-aaaa_bbbb-cccc-dddd_eeee-4",
        "my-eyJaaaaaaaaaaaaaaaaaa.eyJaaaaaaaaa.aaaaaaaaa",
    ],
)
def test_key_behind_what_begins_like_one_goes(text: str) -> None:
    """However its letters, its blanks and what stands before it are mixed."""
    left, _ = taken({"response": text})
    assert "aaaa" not in left["response"]


def test_what_was_replaced_is_not_replaced_again() -> None:
    """A pattern that finds everything leaves the marks of the rules before it."""
    left, _ = taken({"response": SECRETS["groq"]}, "secrets", {"pattern": r"\S{12,}"})
    assert left == {"response": "[redacted:secrets]"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_rule_may_have_the_name_of_a_built_in_one(name: str) -> None:
    """What is looked for decides how it is looked for: nothing is overlooked because of a name."""
    left, _ = taken({"question": "card 1234"}, {"pattern": r"\d{4}", "name": name})
    assert left == {"question": f"card [redacted:{name}]"}


def test_nothing_is_asked_for() -> None:
    """``redact: false`` and an empty list mean it."""
    assert rules_of(False) == rules_of([]) == ()
    assert [rule.name for rule in rules_of(None)] == ["secrets"]
    fields = {"api_key": SECRETS["groq"]}
    assert not suspects(Redactor(()), fields)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("secret", "redact has no rule 'secret': did you mean secrets?"),
        (["ssn"], "redact has no rule 'ssn': there are secrets, email, phone, chinese_id"),
        (5, "redact must be a list of rules, or false for none, got 5"),
        ([5], "redact must be the name of a rule (secrets, email, phone, chinese_id) or a mapping, got 5"),
        ([{"patern": "x"}], "a rule of redact has no 'patern': did you mean pattern?"),
        ([{"pattern": "x", "path": "y"}], "redact must be a rule with one of rule, pattern, path, got"),
        ([{"pattern": "("}], "redact: '(' is no regular expression: missing ), unterminated subpattern at position 0"),
        ([{"pattern": "x*"}], "redact: the pattern 'x*' finds the empty text, so it would be everywhere"),
        ([{"path": "a..b"}], "redact must be a rule whose path is keys joined by points, got 'a..b'"),
        ([{"path": "a", "action": "hide"}], "redact must be a rule whose action is one of replace, drop, hmac, got"),
        ([{"path": "a", "action": "hmac"}], "redact must be a rule with key_env, the environment variable that holds"),
        (
            [{"path": "a", "action": "hmac", "key_env": "AI_RESPONSES_NO_KEY"}],
            "redact: the environment variable AI_RESPONSES_NO_KEY must hold at least 16 bytes of a secret key",
        ),
    ],
)
def test_a_rule_that_is_none_says_what_would_be(option: Any, complaint: str) -> None:
    """When the handler is made, not when the first secret comes."""
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        rules_of(option)


_pieces = st.one_of(
    st.sampled_from(
        [*SECRETS.values(), *AROUND, "Bearer ", "basic ", "://u:", "@", "?key=", "-----BEGIN PRIVATE KEY-----"]
    ),
    st.text(max_size=8),
    st.text("abcXYZ019_-", min_size=10, max_size=40),
)
_texts = st.lists(_pieces, max_size=6).map("".join)
_values = st.recursive(
    st.one_of(_texts, st.integers(), st.none(), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(_texts, st.sampled_from(["api_key", "Token", "x-Secret", "password"])), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.one_of(st.sampled_from(["response", "API_KEY", "metadata"]), st.text(max_size=5)), _values))
def test_the_quick_look_overlooks_nothing(fields: dict[str, Any]) -> None:
    """Whatever is taken out was suspected."""
    try:
        line = orjson.dumps(fields)
    except (TypeError, ValueError):  # a lone surrogate, or an integer that JSON has no room for
        return
    redactor = Redactor((BUILT_IN["secrets"], BUILT_IN["email"]))
    suspected = suspects(redactor, fields)
    left = orjson.loads(line)
    entries = redactor.redact(left)
    assert suspected or not entries


@pytest.mark.parametrize("name", ["api_\u212aey", "to\u212aen", "\u017fecret", "s\u0131g"])
def test_letters_that_only_fold_to_ascii_name_no_parameter(name: str) -> None:
    """The rule and the look before it agree: no server reads a Kelvin sign as a k."""
    text = f"https://host/?{name}={DIGITS}"
    assert taken({"response": text}) == ({"response": text}, [])


@pytest.mark.parametrize("before", ["user_", "user-", "a_b-c_"])
def test_a_key_in_the_middle_of_a_name_is_taken(before: str) -> None:
    """Behind a dash or a low line a word begins."""
    assert SECRETS["openai"] not in taken({"response": before + SECRETS["openai"]})[0]["response"]


@pytest.mark.parametrize(
    ("harmless", "secret"),
    [
        ("Bearer: abcdefghijklmnopqrs1", "Bearer abcdefghijklmnopqrs1"),
        (DIGITS.lower(), SECRETS["zhipu"]),
        (f"n{SECRETS['openai']}", f"\\n{SECRETS['openai']}"),
        (f"{'x' * 64} {SECRETS['openai']}"[:65], f"{'x' * 64}-{SECRETS['openai']}"),
    ],
)
def test_run_that_was_harmless_is_none_where_something_else_stands_around_it(harmless: str, secret: str) -> None:
    """What the look remembers of a run is all that it judges by."""
    redactor = Redactor((BUILT_IN["secrets"],))

    for text in (harmless, f" {harmless}", harmless):
        assert not suspects(redactor, {"response": text})
    assert suspects(redactor, {"response": secret})


def test_few_runs_are_remembered() -> None:
    """An application's fields and models come again and again; ids, of which each is new, fill no memory."""
    redactor = Redactor((BUILT_IN["secrets"],))
    for number in range(1000):
        assert not suspects(redactor, {"response": f"request_number_{number:08d} {'y' * 65}{number}"})

    assert 0 < len(redaction._harmless_runs) <= 256
    assert not any(b"yyy" in run for run in redaction._harmless_runs)


@pytest.mark.parametrize("before", ["", "\n", "\x01"])
def test_of_a_run_up_to_half_a_kilobyte_all_is_looked_at(before: str) -> None:
    """Also where the line has an escape before it, whose letters lengthen the run."""
    key = SECRETS["openai"]
    left, _ = taken({"response": f"{before}{'a' * (511 - len(key))}-{key}"})
    assert key not in left["response"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rf'{{"code": "KEY\n{SECRETS["openai"]}"}}', r'{"code": "KEY\n[redacted:secrets]"}'),
        (rf'{{"code": "\u5bc6{SECRETS["groq"]}"}}', r'{"code": "\u5bc6[redacted:secrets]"}'),
        (r"-H\nBearer abcdefghijklmnopqrs-1", r"-H\nBearer [redacted:secrets]"),
        ("Bearer ya29.a0AfB_by-0123456789abcdefg", "Bearer [redacted:secrets]"),
        (r"https://h/v1?a=1\u0026key=abc\u0026b=2", r"https://h/v1?a=1\u0026key=[redacted:secrets]\u0026b=2"),
        ("https://h/v1?a=1&amp;key=abc", "https://h/v1?a=1&amp;key=[redacted:secrets]"),
        (r"the rest of it is a=1\u0026key=abc", r"the rest of it is a=1\u0026key=[redacted:secrets]"),
        ("the rest of it is a=1&key=abc", "the rest of it is a=1&key=[redacted:secrets]"),
        ("amqp://u:p@ss:w@h/db", "amqp://u:[redacted:secrets]@h/db"),
        ("取 https://h/v1?key=abc，然后保存。", "取 https://h/v1?key=[redacted:secrets]，然后保存。"),
        (r'{"u": "https://h/?key=abc\"}', r'{"u": "https://h/?key=[redacted:secrets]\"}'),
        ("[doc](https://h/?key=abc) tells", "[doc](https://h/?key=[redacted:secrets]) tells"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQ/+\n-----END PGP PRIVATE KEY BLOCK-----.", "[redacted:secrets]."),
        ("It begins `-----BEGIN PRIVATE KEY-----`, and so on.", "It begins `[redacted:secrets]`, and so on."),
    ],
)
def test_only_the_secret_goes_and_all_of_it(text: str, expected: str) -> None:
    """Also in JSON within a text, as tools' arguments are, and with text of another script right behind it."""
    assert taken({"response": text})[0] == {"response": expected}


@pytest.mark.parametrize(
    "text",
    [
        "https://shop.example/sk-ii-facial-treatment-essence-230ml",
        "https://news.example/sk-hynix-begins-mass-production-of-hbm3e-12-layer",
        "https://site.example/xai-explainable-ai-introduction",
        "npm_config_user_agent and hf_hub_download_with_retries",
        'f"postgresql://{user}:{password}@{host}/{db}"',
        "mysql://root:${MYSQL_PASSWORD}@db, redis://user:***@db, http://<user>:<password>@proxy",
        '["http://localhost:8080","me@example.com"]',
        "访问http://localhost:8000，写信给me@example.com",
        "https://h/v1?api_key={API_KEY}, https://h/v1?key=YOUR_API_KEY",
        "https://shop.example/s?key=%E6%89%8B%E6%9C%BA",
        "curl -H 'Authorization: Bearer YOUR_OPENAI_API_KEY'",
        "read(&a, &key=b), ASIAPACIFICREGIONALHQ",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    """Links of products and of news, names of a program, what stands in a key's place in a manual."""
    assert taken({"response": text}) == ({"response": text}, [])


def test_paths_of_what_was_taken_hold_no_secret() -> None:
    """A dict keyed by API key: neither the key nor the list of what was taken shows it."""
    left, entries = taken({"metadata": {SECRETS["groq"]: {"api_key": "geheim", "x": SECRETS["xai"]}}})
    assert left == {"metadata": {"[redacted:secrets]": {"api_key": "[redacted:secrets]", "x": "[redacted:secrets]"}}}
    assert not any(secret in str(entries) for secret in SECRETS.values())


def test_names_that_end_like_a_secrets_and_types_of_a_schema() -> None:
    """Any provider's API key has one name; the type of a field is not its value."""
    fields = {"DASHSCOPE_API_KEY": "geheim", "tools": [{"password": "string"}]}
    assert taken(fields)[0] == {"DASHSCOPE_API_KEY": "[redacted:secrets]", "tools": [{"password": "string"}]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "beginning", ["sk-", "sk-a1-", "eyJ-", "xai-", "://a:", "-----BEGIN PRIVATE KEY----- ", "?key="]
)
def test_text_of_beginnings_only_costs_what_its_length_does(beginning: str) -> None:
    """
    Ten times the text takes about ten times as long, not a hundred times.

    No time is asserted: with a cost that is quadratic, what follows takes hours.
    """
    text = beginning * (2_000_000 // len(beginning))
    Redactor(rules_of(None)).redact({"response": f"{text}@"})
