"""Which drawing stands for a token: only what the data supports, else a plain stick."""

import re
from collections.abc import Mapping

from keyfit.model.catalog import Brand, Model
from keyfit.publisher.site.branding import Form

FORMS: tuple[Form, ...] = ("stick-display", "nano", "reader", "card", "stick")
"""Every drawing, the plain one last."""
_WORDS: Mapping[str, Form] = {"nano": "nano", "reader": "reader"}
"""Word of a model's name -> shape that it promises. Words like "card" or "key" promise none."""


def form_of(brand: Brand, model: Model | None, told: Mapping[str, Form]) -> Form:
    """The shape of a model, or of a brand if all its models have one.

    Args:
        told: what the publisher says: "brand" or "brand/model" -> shape.
    """
    if model is None:
        forms = {form_of(brand, one, told) for one in brand.model}
        return forms.pop() if len(forms) == 1 else told.get(brand.brand, "stick")
    for name in (f"{brand.brand}/{model.id}", brand.brand):
        if name in told:
            return told[name]
    if brand.class_driver:
        return "card"  # it stands for whatever a card is put into
    words = re.findall(r"[a-z]+", model.name.lower())
    return next((form for word, form in _WORDS.items() if word in words), "stick")
