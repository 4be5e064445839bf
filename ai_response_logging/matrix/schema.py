"""The JSON Schema of a plan's YAML, made from the same checks that the loader uses; shipped as ``plan.schema.json``."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from ._checks import object_schema, text
from .load import QUESTIONS_FILE
from .parts import MODEL_KEYS, QUESTION_KEYS, ModelSpec, Question
from .plan import PLAN_KEYS, Plan

SCHEMA_FILE: Final = os.path.join(os.path.dirname(__file__), "plan.schema.json")


def plan_schema() -> dict[str, Any]:
    """
    Return the JSON Schema (2020-12) of what a plan's YAML may hold.

    What the loader refuses beyond it: placeholders that cannot be filled in, limits of a platform that no model is
    of, an address without a host, a number such as 8.0 where a whole one is wanted.

    .. versionadded:: 0.1.0
    """
    with open(SCHEMA_FILE, encoding="utf-8") as file:
        schema: dict[str, Any] = json.load(file)
    return schema


def made_schema() -> dict[str, Any]:
    """Make the schema from the checks; a test holds the shipped file to it."""
    question = {"anyOf": [dict(text.schema), object_schema(Question, QUESTION_KEYS)]}
    schema = object_schema(Plan, PLAN_KEYS)
    schema["properties"] = {
        "questions": {"type": "array", "items": question, "minItems": 1},
        QUESTIONS_FILE: dict(text.schema),
        "models": {"type": "array", "items": object_schema(ModelSpec, MODEL_KEYS), "minItems": 1, "uniqueItems": True},
        **schema["properties"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A plan for ai-responses run: N questions x M models",
        **schema,
        "required": ["models"],
        "oneOf": [{"required": ["questions"]}, {"required": [QUESTIONS_FILE]}],
    }
