"""What a run's page says in words."""

from training.report import run_sections


def test_what_parts_and_crops_say_is_told_in_words() -> None:
    merging = {"groups": 4, "agreement": {"11": 0.62, "4": 0.56}, "error": 0.07, "whole": 0.54, "pieces": 48}
    said = run_sections.found_without_labels(merging, {"stable": 0.93})
    assert "93% are in the cluster" in said
    assert (
        "made 4 groups, which gave away what is small and unlike the rest of them until there were 11 clusters" in said
    )
    assert "to 4: 0.56, 11: 0.62." in said
    assert "by more than one standard error (0.07), are not trusted" in said
    plain = run_sections.found_without_labels(merging | {"groups": 11}, None)
    assert "joined until there were 11 clusters, and no further" in plain
    assert "gave away" not in plain
    assert "too small for its parts" in run_sections.found_without_labels(merging | {"whole": None}, None)
    assert run_sections.found_without_labels(None, None) == ""
