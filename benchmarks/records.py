"""
What is logged: 22 fields and about 5 kB, as answers of models have them.

Each record holds new strings. CPython keeps the UTF-8 form of a string that was encoded once, so that a benchmark which
logs one dictionary again and again measures an encoder that has nothing left to do.
"""

from __future__ import annotations

import functools
import random
from typing import Any, Final

ID: Final = "bench_id"
"""The field by which a record is found again; `record_id` is left to whoever makes one."""
ANSWER: Final = 1200  # characters, most of them Chinese: about 2.9 kB
_TEMPLATES: Final = 64


@functools.cache
def _texts(characters: int) -> list[str]:
    dice = random.Random(2602)  # noqa: S311  the same texts each time
    return [_text(dice, characters) for _ in range(_TEMPLATES if characters < 10 * ANSWER else 2)]


def _text(dice: random.Random, characters: int) -> str:
    """Return runs of Chinese with words, line breaks and quotes between them, as answers in Markdown have them."""
    pieces: list[str] = []
    missing = characters
    while missing > 0:
        kind = dice.random()
        if kind < 0.6:
            piece = "".join(chr(dice.randrange(0x4E00, 0x9FA0)) for _ in range(dice.randrange(6, 20)))
        elif kind < 0.9:
            piece = "".join(chr(dice.randrange(97, 123)) for _ in range(dice.randrange(3, 11))) + " "
        else:
            piece = '\n- "' if kind < 0.97 else "**"
        pieces.append(piece)
        missing -= len(piece)
    return "".join(pieces)[:characters]


def make(number: int, tag: str, answer: int = ANSWER) -> dict[str, Any]:
    """Return record *number* of *tag*, with an answer of so many characters; below 100 a short one all round."""
    name = f"{tag}-{number:08d}"
    if answer < 100:
        return {ID: name, "response": _texts(answer)[number % _TEMPLATES] + name, "model": "m"}
    questions, answers = _texts(600), _texts(answer)
    return {
        ID: name, "unix_timestamp": 1_790_000_000.5 + number,
        "question": questions[number % len(questions)] + name, "response": answers[number % len(answers)] + name,
        "platform": "deepseek", "model": "deepseek-chat", "success": True, "brand": "brand", "competitor": "one, two",
        "industry": "consulting", "latency_ms": 1500 + number % 991, "tokens_used": 2660, "prompt_tokens": 300,
        "completion_tokens": 2360, "retry_count": 0, "http_status_code": 200, "temperature": 0.7,
        "execution_id": "0d9f3d5e-7b1f-4a57-9d1a-3a1d2f6b8c11", "question_index": number % 3, "total_questions": 3,
        "session_id": f"session-{number % 40}", "metadata": {"source": "benchmark", "api_version": "v1"},
    }  # fmt: skip


def stock(count: int, tag: str, answer: int = ANSWER) -> list[dict[str, Any]]:
    """Return *count* records."""
    return [make(number, tag, answer) for number in range(count)]
