from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_response_logging.errors import ConfigError
from ai_response_logging.matrix import ModelSpec, Plan, Question
from ai_response_logging.matrix.placeholders import filled

MODELS = [ModelSpec("p", "m")]
VALUES = {"brandName": "华为", "competitorBrand": "小米, Vivo"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{brandName} or {competitorBrand}?", "华为 or 小米, Vivo?"),
        ("{brandName}{brandName}", "华为华为"),
        ("{{brandName}}", "{brandName}"),
        ("{{anything}}", "{anything}"),
        ('answer as {"a": {"b": 1}}', 'answer as {"a": {"b": 1}}'),
        ("a{3} {} { brandName } {brand-name}", "a{3} {} { brandName } {brand-name}"),
        ("no braces", "no braces"),
        ("{", "{"),
    ],
)
def test_names_in_braces_are_filled_in_and_all_else_is_text(template: str, text: str):
    """The two placeholders are; doubled braces, JSON and single braces are what they are."""
    assert filled(template, VALUES, where="here") == text


@pytest.mark.slow
@given(st.text(), st.text())
def test_values_are_text_whatever_they_hold(brand: str, competitor: str):
    """A brand that looks like a placeholder is not filled in again."""
    values = {"brandName": brand, "competitorBrand": competitor}

    assert filled("{brandName}|{competitorBrand}", values, where="here") == f"{brand}|{competitor}"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("brand", "did you mean {brandName}?"),
        ("brand_name", "did you mean {brandName}?"),
        ("BRANDNAME", "did you mean {brandName}?"),
        ("competitor", "did you mean {competitorBrand}?"),
        ("competitorBrands", "did you mean {competitorBrand}?"),
        ("品牌", "write {{品牌}} for the text {品牌}"),
        ("zzz", "There are {brandName}, {competitorBrand}; write {{zzz}}"),
    ],
)
def test_unknown_placeholder_is_refused_with_what_may_be_meant(name: str, says: str):
    """Nothing is sent with a hole in it: the complaint names what there is, and how to send braces."""
    with pytest.raises(ConfigError) as caught:
        Plan(["fine", f"is {{{name}}} good?"], MODELS, brand="A", competitors="B")

    assert says in str(caught.value)
    assert caught.value.where == "questions[1]"


def test_questions_own_brand_goes_before_the_plans():
    """A question is filled in with its own context, else the plan's; so is the system message before it."""
    plan = Plan(
        ["{brandName}?", Question("{brandName} or {competitorBrand}?", brand="B", competitors=["X", "Y"])],
        MODELS,
        brand="A",
        competitors="C",
        system="You advise {brandName}.",
    )

    assert [question.text for question in plan.asked] == ["A?", "B or X, Y?"]
    assert [question.competitor for question in plan.asked] == ["C", "X, Y"]
    assert [plan.system_for(1), plan.system_for(2)] == ["You advise A.", "You advise B."]


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"questions": ["why?", "{competitorBrand}?"], "brand": "A"}, "questions[1]"),
        ({"questions": ["why?"], "system": "You advise {brandName}."}, "system"),
    ],
)
def test_placeholder_that_nothing_fills_in_is_refused(options: dict[str, object], where: str):
    """A question without its brand is found before it is asked."""
    with pytest.raises(ConfigError, match="is not set") as caught:
        Plan(models=MODELS, **options)  # type: ignore[arg-type]

    assert caught.value.where == where


def test_placeholders_can_be_turned_off():
    """Questions full of braces, as about code, are sent as they stand."""
    plan = Plan([r"What is \frac{a}{b} of {brandName}?"], MODELS, placeholders=False)

    assert plan.question(1).text == r"What is \frac{a}{b} of {brandName}?"
