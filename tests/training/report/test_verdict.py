"""What went wrong is said in words, with the option that helps; a sound run is called so."""

from typing import Any

import pytest

from training.report import verdict


def facts(fractions: list[float], **changed: Any) -> dict[str, Any]:
    """report.json of a sound run, but for what is changed."""
    flat = [1 / 40] * 40
    return {
        "images": 100,
        "skipped": 0,
        "measured_on": 100,
        "usage": {"fractions": fractions},
        "stability": 0.9,
        "similarity": {"within": flat, "between": flat},
        "runners_up": [],
        "near_duplicates": 0,
    } | changed


def texts(found: dict[str, Any], recipe: dict[str, Any] | None = None, log: list[dict[str, Any]] | None = None) -> str:
    """All warnings in one text."""
    told = verdict.warnings(found, log or [], recipe or {"method": "stego", "stego": {}}, [])
    return "\n".join(f"{one.text} {one.help} {one.option}" for one in told)


EVEN = [0.2] * 5


def test_a_sound_run_has_no_warning_and_nothing_against_its_k() -> None:
    assert texts(facts(EVEN)) == ""
    said = verdict.is_k_right(facts(EVEN), None)
    assert said.startswith("Yes. Nothing speaks against K = 5")
    assert "have not been tried" in said


@pytest.mark.parametrize(
    ("method", "table", "option"),
    [
        ("stego", {}, "stego.balance=auto"),
        ("picie", {"class_weights": "inverse"}, "picie.class_weights=none"),
        ("picie", {"class_weights": "none"}, ""),
        ("cause", {"center": False}, "cause.center=true"),
        ("smooseg", {"shifts": "fixed"}, "smooseg.shifts=auto"),
        ("smooseg", {"shifts": "auto"}, ""),
        ("san", {}, ""),
    ],
)
def test_one_cluster_that_takes_all_names_the_option_that_was_not_tried(
    method: str, table: dict[str, Any], option: str
) -> None:
    [first, *_] = verdict.warnings(facts([0.8, 0.1, 0.05, 0.03, 0.02]), [], {"method": method, method: table}, [])
    assert "Cluster 0 takes 80%" in first.text
    assert first.option == option


def test_of_two_clusters_one_may_hold_most() -> None:
    assert texts(facts([0.85, 0.15])) == ""
    assert "takes 95%" in texts(facts([0.95, 0.05]))


def test_unused_clusters_are_counted_and_the_rest_proposed() -> None:
    found = facts([0.5, 0.3, 0.2, 0.0, 0.0])
    assert "2 of 5 clusters are in no photo." in texts(found)
    assert "clusters.k=3" in texts(found)
    assert verdict.is_k_right(found, None).startswith("Not quite. K = 5 is more than these photos fill: 2 are empty")


def test_where_nothing_is_told_apart_nothing_is_said_of_its_clusters() -> None:
    """Two of eight clusters in use, one with all pixels: no reason to train with two."""
    found = facts([0.999, 0.001, 0, 0, 0, 0, 0, 0], stability=0.1)
    [only] = verdict.warnings(found, [], {"method": "stego", "stego": {}}, [])
    assert only.option == "stego.balance=auto"
    assert verdict.is_k_right(found, {"sentence": "K = 2"}).startswith("It cannot be told")


def test_collapse_instability_few_photos_repetitions_and_losses_are_told() -> None:
    alike = [0.0] * 39 + [1.0]
    assert "collapsed" in texts(facts(EVEN, similarity={"within": alike, "between": alike}))
    assert "depend on the seed" in texts(facts(EVEN, stability=0.2))
    assert "12 photos are few" in texts(facts(EVEN, images=12))
    assert "40 of 100 photos nearly repeat" in texts(facts(EVEN, near_duplicates=40))
    assert "50 of 150 files" in texts(facts(EVEN, skipped=50))


def test_a_rising_loss_names_a_lower_rate_and_a_falling_one_nothing() -> None:
    recipe = {"method": "stego", "stego": {"lr": 0.003}}
    rising = [{"stage": "head", "step": i, "loss": 1 + 0.1 * i} for i in range(20)]
    assert "In stage head the loss rose" in texts(facts(EVEN), recipe, rising)
    assert "stego.lr=0.001" in texts(facts(EVEN), recipe, rising)
    assert texts(facts(EVEN), recipe, rising[::-1]) == ""
    assert texts(facts(EVEN), recipe, rising[:4]) == ""  # too few lines to say


def test_what_the_run_itself_warned_of_is_repeated() -> None:
    noted = [
        {"stage": "head", "step": 30, "text": "codes are all alike", "option": "stego.balance=auto"},
        "disk is slow",
    ]
    told = verdict.warnings(facts(EVEN), [], {"method": "stego"}, noted)
    assert told[0] == ("Codes are all alike (noticed in stage head, step 30).", "May help", "stego.balance=auto")
    assert told[1] == ("Disk is slow.", "", "")


def test_second_choices_of_each_other_may_be_one_thing() -> None:
    found = facts(EVEN, runners_up=[[[1, 0.9]], [[0, 0.8]], [[0, 0.9]], [[4, 0.7]], [[3, 0.4]]])
    assert verdict.pairs_alike(found) == [(0, 1)]
    assert verdict.pairs_alike(facts([0.5, 0.5], runners_up=[[[1, 1.0]], [[0, 1.0]]])) == []
    assert "perhaps one thing: 0 and 1" in verdict.is_k_right(found, None)


def test_a_curve_speaks_first() -> None:
    said = verdict.is_k_right(facts(EVEN), {"sentence": "K = 7 is the most stable.", "curve": []})
    assert said == "Yes. K = 7 is the most stable."
    said = verdict.is_k_right(facts(EVEN), {"sentence": "K = 7 is the most stable", "curve": [], "proposed": 7})
    assert said == "It is one that works, not the only one. K = 7 is the most stable. This bundle has 5."
