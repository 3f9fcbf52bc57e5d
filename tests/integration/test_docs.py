"""Pages made from the code's tables say what the tables say."""

from docs import formats


def test_the_page_of_formats_is_the_codes_own() -> None:
    assert formats.PAGE.read_text(encoding="utf-8") == formats.page(), "run: python -m docs.formats"
