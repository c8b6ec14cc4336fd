"""keyproxy before the fakes: what its settings say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from keyproxy.settings import Settings
from keyproxy.settings.sources import Sources
from tests.fakes.fake import Fake
from tests.fakes.server import Fakes
from tests.fakes.vendor import Model


def environment(fakes: Fakes) -> dict[str, str]:
    """Whose keys are used, in this order, and the keys."""
    keys = {f"{name.upper()}_API_KEY": fake.key for name, fake in fakes.items()}
    return {"KEYPROXY_PROVIDERS": ",".join(fakes), **keys}


def toml(fakes: Fakes, *, at: bool = True) -> str:
    """Where they are; and, with ``at``, who has which model under which id, at which price."""
    lines = [line for fake in fakes.values() for line in _provider(fake)]
    if at:
        models = dict.fromkeys(
            model.canonical for fake in fakes.values() for model in fake.vendor.models
        )
        lines += [line for model in models for line in _model(fakes, model)]
    return "\n".join(lines) + "\n"


def settings_for(fakes: Fakes, directory: Path, **variables: str) -> Settings:
    """Those of ``dev``, read as from the files of ``directory``."""
    (directory / "keyproxy.toml").write_text(toml(fakes))
    return Sources("dev", {}, environment(fakes) | variables, directory).read()


def _provider(fake: Fake) -> Iterator[str]:
    base, *more = fake.vendor.bases
    yield f"[providers.{fake.vendor.name}]"
    yield f'base = "{fake.origin}{base}"'
    for each in more:
        yield f'messages_base = "{fake.origin}{each}"'


def _model(fakes: Fakes, canonical: str) -> Iterator[str]:
    homes = [
        (name, model)
        for name, fake in fakes.items()
        for model in fake.vendor.models
        if model.canonical == canonical
    ]
    yield f'[models."{canonical}"]'
    places = (name if name == "openrouter" else f"{name}:{model.id}" for name, model in homes)
    yield f"at = {json.dumps(list(places))}"
    for name, model in homes:
        yield from _price(canonical, name, model)


def _price(canonical: str, name: str, model: Model) -> Iterator[str]:
    yield f'[models."{canonical}".price.{name}]'
    prices = {"input": model.prompt, "output": model.completion, "cached": model.cached}
    for what, price in prices.items():
        yield f"{what} = {_number(price)}"


def _number(price: Decimal) -> str:
    text = f"{price:f}"
    return text if "." in text else f"{text}.0"
