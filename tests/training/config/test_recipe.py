"""Typos are named, overrides are typed, what is written is what is read."""

from functools import partial
from pathlib import Path

import pytest

from models.errors import UsageError
from tests.training.small_run import settled
from training import methods
from training.config import recipe
from training.config.recipe import Recipe

parse = partial(recipe.parse, config_of=methods.config)
RECIPES = sorted((Path(recipe.__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_shipped_is_sound(path: Path) -> None:
    found = settled(path)
    assert parse(recipe.page_of(found)) == found


@pytest.mark.parametrize("name", methods.names())
def test_a_written_recipe_is_read_back(name: str, tmp_path: Path) -> None:
    odd = parse({"method": name}, overrides=['export.licence=a "quoted" \\ line\u00e9\U0001f600', "seed=3"])
    (tmp_path / "r.toml").write_text(recipe.encode(odd), encoding="utf-8")
    again = settled(tmp_path / "r.toml")
    assert again == odd
    assert again.sha256 == odd.sha256
    assert odd.differences(again) == []


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ({"sed": 1}, r"sed: unknown key; did you mean seed\?"),
        ({"clusters": {"kk": 3}}, r"clusters\.kk: unknown key; did you mean clusters\.k\?"),
        ({"backbone": {"wieghts": "x"}}, r"did you mean backbone\.weights\?"),
        ({"backbone": {"mean": [0.5]}}, r"backbone: mean and std are three numbers"),
        ({"backbone": {"std": [0.5, 0.5, 0]}}, r"backbone: mean and std are three numbers"),
        ({"stego": {"code_dims": 70}}, r"stego\.code_dims: unknown key; did you mean stego\.code_dim\?"),
        ({"stegos": {}}, r"stegos: unknown key; did you mean stego\?"),
        ({"xyzzy": 1}, r"xyzzy: unknown key; there are method, seed"),
        ({"export": {"debias": -1}}, r"export\.debias: write how many directions are taken out, 0 for none, or auto"),
        ({"export": {"debias": True}}, r"export\.debias: write how many directions"),
        ({"clusters": {"k": 1}}, r"clusters\.k: write 2 to 255 clusters, or auto \(it is 1\)"),
        ({"clusters": {"k": "many"}}, r"clusters\.k: .*it is 'many'"),
        ({"clusters": {"runs": 3}}, r"clusters: runs over 1 needs distill_steps over 0"),
        ({"options": {"code_dim": 3}}, r"belong in a table \[stego\]"),
        ({"picie": {"epochs": 3}}, r"picie: unknown key"),
    ],
)
def test_a_typo_is_named(page: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(page)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("seed=5", lambda r: r.seed == 5),
        ("clusters.k=12", lambda r: r.clusters.k == r.clusters.count == 12),
        ("clusters.k=auto", lambda r: (r.clusters.k, r.clusters.count) == ("auto", 27)),
        ("clusters.region_scales=[100.0, 250]", lambda r: r.clusters.region_scales == (100.0, 250.0)),
        ("backbone.name=resnet18", lambda r: r.backbone.name == "resnet18"),
        ('export.name="a-b"', lambda r: r.export.name == "a-b"),
        ("stego.zero_clamp=false", lambda r: r.options["zero_clamp"] is False),
        ("stego.lr=1e-4", lambda r: r.options["lr"] == 1e-4),
        ("backbone.weights=/tmp/a=b.pth", lambda r: r.backbone.weights == "/tmp/a=b.pth"),
    ],
)
def test_overrides_are_toml_values(override: str, found) -> None:  # type: ignore[no-untyped-def]
    assert found(parse({}, overrides=[override]))


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", "seed.x=3"])
def test_a_malformed_override_is_named(override: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse({"seed": 1}, overrides=[override])


def test_the_command_line_does_not_contradict_the_file() -> None:
    assert parse({}, method="picie").method == "picie"
    with pytest.raises(UsageError, match=r"method = 'stego', the command line 'picie'"):
        parse({"method": "stego"}, method="picie")


def test_options_hold_every_value_of_the_method() -> None:
    assert parse({}).options["code_dim"] == 70
    assert parse({}).sha256 == parse({"stego": {"code_dim": 70}}).sha256
    assert parse({}).sha256 != parse({"stego": {"code_dim": 71}}).sha256


def test_differences_name_the_key() -> None:
    assert parse({}).differences(parse({"seed": 2, "stego": {"code_dim": 9}})) == [
        "seed: 0, here 2",
        "stego.code_dim: 70, here 9",
    ]


def test_a_page_is_left_as_it_was() -> None:
    page = {"clusters": {"k": 3}}
    parse(page, overrides=["clusters.k=5"])
    assert page == {"clusters": {"k": 3}}


@pytest.mark.parametrize(("text", "message"), [("a = = b", "line 1"), ("\xff", "r.toml")])
def test_a_file_that_is_no_toml(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        settled(tmp_path / "r.toml")
    with pytest.raises(UsageError, match="no such recipe"):
        settled(tmp_path / "absent.toml")


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3  # type: ignore[misc]
