"""What a cluster may be called: every script, and nothing unseen."""

import re
import sys
import unicodedata

import pytest
from pydantic import TypeAdapter, ValidationError

from models.names import ClusterName, cleaned

NAME: TypeAdapter[str] = TypeAdapter(ClusterName)


@pytest.mark.parametrize(
    "name",
    [
        "road", "Straße 7 (naß)", "дорога", "道路", "قبر", "می\u200cخواهم", "क्\u200dष", "നന്\u200d", "👩\u200d🌾 field",
        "❤\ufe0f", "1\ufe0f\u20e3 lane", "🏳\ufe0f\u200d🌈", "a" * 80, "two  spaces", "<b>&amp;", "e\u0301",
    ],
)  # fmt: skip
def test_every_script_has_names(name: str) -> None:
    assert NAME.validate_python(name) == name
    assert cleaned(name) == name


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("two\nlines", "twolines"),
        ("\x1b[2Jroad", "[2Jroad"),
        ("ro\x7fad", "road"),
        ("ro\x85ad", "road"),
        ("ro\u2028ad", "road"),
        ("road\u202egnp", "roadgnp"),
        ("\u2066road\u2069", "road"),
        ("\u200froad", "road"),
        ("\u061croad", "road"),
        ("ro\u200bad", "road"),
        ("ro\u200dad", "road"),
        ("road\ufe0f", "road"),
        ("道\u200d\u200d\u200d路", "道\u200d\u200d路"),
        ("ro\u00adad", "road"),
        ("road\ufeff", "road"),
        ("road\U000e0041", "road"),
        ("\ue000road", "road"),
        ("road\ud800", "road"),
        ("road\uffff", "road"),
        ("\u3164", ""),
        ("\u2800 \u115f", ""),
    ],
)
def test_what_is_not_seen_is_refused_and_cleaned_away(name: str, seen: str) -> None:
    with pytest.raises(ValidationError, match=r"not seen|unicode"):
        NAME.validate_python(name)
    assert cleaned(name) == seen


@pytest.mark.parametrize("name", ["", "  ", "\u3000", "a" * 81])
def test_a_name_has_1_to_80_characters(name: str) -> None:
    with pytest.raises(ValidationError, match=r"at (least|most)"):
        NAME.validate_python(name)


def test_every_control_format_and_private_character_is_refused() -> None:
    kinds = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    unseen = [chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)) in kinds]
    assert len(unseen) > 100_000
    assert cleaned("道" + "".join(set(unseen) - {"\u200c", "\u200d"}) + "路") == "道路"


def test_the_schema_says_it_too() -> None:
    pattern = NAME.json_schema()["pattern"]
    assert re.search(pattern, "道路")
    assert not re.search(pattern, "ro\u202ead")
