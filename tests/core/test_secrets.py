"""Fields that are marked secret are stored and restored, and shown by nothing that shows objects and their past."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import pydantic
import pytest

from symphony_es import Symphony, entity, part, value
from symphony_es.errors import UnstorableValueError

MARK = {"secret": True}


@value
class Pin:
    digits: str = field(default="", metadata=MARK)
    shown: int = 0


@part
class Card:
    holder: str
    cvc: str = field(default="", metadata=MARK)
    pin: Pin = Pin()


@entity
class Wallet:
    owner: str = ""
    token: str = field(default="", metadata=MARK)
    key_ring: dict[str, Any] = field(default_factory=dict, metadata=MARK)
    cards: list[Card] = field(default_factory=list)
    main: Card | None = None


@entity
class RicherWallet(Wallet):
    more: int = 0


class Foreign(pydantic.BaseModel):
    id: str
    password: pydantic.SecretStr


NEEDLE = "hunter"


def secrets() -> dict[str, Any]:
    card = lambda n: Card("Ann", f"hunter{n}", Pin(f"hunter{n}", 7))  # noqa: E731
    return {"token": "hunter1", "key_ring": {"a": ["hunter2"]}, "cards": [card(3)], "main": card(4)}


def change(wallet: Wallet) -> None:
    wallet.token = "hunter5"
    wallet.key_ring["a"].append("hunter6")
    wallet.key_ring["b"] = {"c": "hunter7"}
    wallet.cards[0].cvc = "hunter8"
    wallet.cards[0].pin = Pin("hunter9")
    wallet.cards.append(Card("Bob", "hunter10"))
    wallet.main = None
    del wallet.key_ring["a"]


@pytest.mark.parametrize("cls", [Wallet, RicherWallet])
async def test_nothing_shows_a_secret(cls: type[Wallet], symphony: Symphony) -> None:
    """The objects, versions, lines, tables, blame, differences and walks; what is not secret is there."""
    wallet = symphony.entities.add(cls(id="w", owner="Ann", **secrets()))
    await symphony.flush()
    first = symphony.log.head
    shown = [repr(wallet), str(wallet), f"{wallet}", repr(wallet.cards), repr(wallet.main)]
    change(wallet)
    await symphony.flush()
    key = f"{cls.__name__}:w"
    history = await symphony.history(key)
    difference = await symphony.diff(first, "latest")
    blame = await symphony.blame(key, "token")
    shown += [repr(history), history._repr_html_(), repr(difference), difference._repr_html_(), repr(blame)]
    shown += [repr(version) for version in history]
    view = await symphony.at("latest")
    shown += [repr(view), repr(view.state(key)), repr((await symphony.at(first)).state(key))]
    assert "'owner': 'Ann'" in shown[-1]
    assert not [text for text in shown if NEEDLE in text]
    assert "owner" in repr(wallet)
    assert "token *** → ***" in repr(difference)


async def test_secrets_come_back(symphony: Symphony) -> None:
    """They are values like others: recorded, restored, compared, and given by whatever gives data."""
    wallet = symphony.entities.add(Wallet(id="w", **secrets()))
    await symphony.flush()
    await symphony.resume()
    again = symphony.entities.get(Wallet, "w")
    assert (again.token, again.key_ring, again.cards, again.main) == (wallet.token, wallet.key_ring, wallet.cards, wallet.main)
    assert (await symphony.at("latest")).get("Wallet:w")["token"] == "hunter1"


@pytest.mark.parametrize("name", ["token", "key_ring"])
async def test_errors_do_not_quote_secrets(name: str, symphony: Symphony) -> None:
    """A value that cannot be stored is refused by its type and place."""

    class Odd:
        def __repr__(self) -> str:
            return NEEDLE

    wallet = symphony.entities.add(Wallet(id="w"))
    for wrong in (Odd(), {"hunter": Odd()}, [Odd()], frozenset({NEEDLE})):
        with pytest.raises(UnstorableValueError) as caught:
            setattr(wallet, name, wrong)
        if not isinstance(wrong, dict):
            assert NEEDLE not in str(caught.value)


async def test_a_pydantic_secret_is_refused_without_being_shown(symphony: Symphony) -> None:
    """It says itself that it does not want to be written: the error names the field and its class."""
    with pytest.raises(UnstorableValueError, match=r"Foreign:f.*password.*SecretStr") as caught:
        symphony.entities.add(Foreign(id="f", password=pydantic.SecretStr("hunter2")))
    assert NEEDLE not in str(caught.value)
