"""Recipes: what is accepted, what is refused and how clearly, and that a hash means one result."""

import json
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from finetune import FinetuneRecipe
from mim.recipe import (
    RecipeError,
    choice,
    describe,
    differences,
    load_recipe,
    recipe_hash,
    save_recipe,
    section,
    setting,
    to_dict,
)
from pretrain import PretrainRecipe

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"


@dataclass(frozen=True)
class Loop:
    steps: int = setting(100, "how long")
    rate: float = setting(0.1, "how fast")
    save_every: int = setting(10, "how often", affects_result=False)


@dataclass(frozen=True)
class Recipe:
    name: str = setting("first", "what")
    shuffle: bool = setting(False, "whether")
    kind: Literal["adamw", "sgd"] = setting("adamw", "which")
    shape: tuple[int, int, int] = setting((1, 2, 3), "where")
    strides: tuple[tuple[int, int, int], ...] = setting((), "how far")
    words: tuple[str, ...] = setting((), "which ones")
    flips: tuple[bool, bool] = setting((True, True), "turns")
    loop: Loop = section(Loop)


@pytest.fixture
def load(tmp_path):
    def load(text: str, *overrides: str) -> Recipe:
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return load_recipe(Recipe, path, overrides)

    return load


def test_file_then_override_decide_and_the_rest_are_defaults(load):
    recipe = load('name = "a"\n[loop]\nsteps = 5\nrate = 1', "loop.steps=7")
    assert recipe == Recipe(name="a", loop=Loop(steps=7, rate=1.0))
    assert isinstance(recipe.loop.rate, float)


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("shape=4,5,6", "shape", (4, 5, 6)),
        ("shape=[4, 5, 6]", "shape", (4, 5, 6)),
        ("shape=(4,5,6)", "shape", (4, 5, 6)),
        ("strides=(1,1,1),(2,2,2)", "strides", ((1, 1, 1), (2, 2, 2))),
        ("strides=[[1,2,2]]", "strides", ((1, 2, 2),)),
        ("strides=[]", "strides", ()),
        ("flips=true,false", "flips", (True, False)),
        ("shuffle=true", "shuffle", True),
        ("name=runs/a b=c", "name", "runs/a b=c"),
        ("name=12", "name", "12"),
        ("kind=sgd", "kind", "sgd"),
        (" kind = sgd ", "kind", "sgd"),
        ("words=a", "words", ("a",)),
        ("words=a, b", "words", ("a", "b")),
        ("words=C:\\new, /b c", "words", ("C:\\new", "/b c")),
        ("words=[a,b]", "words", ("a", "b")),
        ("words=['a=1,2', 'b']", "words", ("a=1,2", "b")),
    ],
)
def test_overrides_are_read_by_the_type_of_their_key(load, override, name, value):
    assert getattr(load("", override), name) == value


@pytest.mark.parametrize("text", ["1e-3", ".001", "0.001"])
def test_numbers_are_read_as_people_write_them(load, text):
    assert load("", f"loop.rate={text}").loop.rate == 0.001


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("nome = 'a'", (), r"recipe\.toml: unknown key nome; did you mean name\?"),
        ("[loop]\nstep = 1", (), r"unknown key loop\.step; did you mean loop\.steps\?"),
        ("steps = 1", (), r"did you mean loop\.steps\?"),
        ("loop = 3", (), "loop is a section"),
        ("", ("loop.stepps=1",), r"'loop\.stepps=1': unknown key .* did you mean loop\.steps\?"),
        ("", ("steps=1",), r"did you mean loop\.steps\?"),
        ("", ("zzzzzz=1",), "--help"),
        ("", ("loop.steps",), "write key=value"),
        ("", ("loop.steps=1.5",), r"loop\.steps must be a whole number, not 1\.5"),
        ("", ("loop.steps=true",), "must be a whole number, not true"),
        ("", ("loop.steps=many",), 'must be a whole number, not "many"'),
        ("", ("loop.rate=nan",), "must be a number"),
        ("", ("shuffle=1",), "must be true or false"),
        ("", ("kind=adam",), "must be one of adamw, sgd"),
        ("", ("shape=1,2",), "must have 3 entries, not 2"),
        ("", ("shape=1,2,x",), "shape must be a list of 3 entries"),
        ("", ("strides=(1,1,1),(2,2.5,2)",), r"strides\[1\]\[1\] must be a whole number"),
        ("name = 3", (), "name must be text"),
        ("name = ", (), r"recipe\.toml is not a readable recipe"),
    ],
)
def test_mistakes_are_refused_by_name(load, text, overrides, message):
    with pytest.raises(RecipeError, match=message):
        load(text, *overrides)


def test_missing_recipe_is_refused_by_name(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe .*gone\.toml"):
        load_recipe(Recipe, tmp_path / "gone.toml")


def test_hash_is_that_of_the_values_whatever_their_order(load):
    first = load('name = "a"\nshuffle = true\n[loop]\nsteps = 5\nrate = 2')
    second = load('shuffle = true\nname = "a"\nloop = {rate = 2.0, steps = 5}')
    assert recipe_hash(first) == recipe_hash(second)
    assert len({recipe_hash(first), recipe_hash(Recipe()), recipe_hash(Recipe(name="b"))}) == 3


def test_hash_ignores_what_cannot_change_a_result():
    assert recipe_hash(Recipe(loop=Loop(save_every=3))) == recipe_hash(Recipe())
    assert recipe_hash(Recipe(loop=Loop(rate=3.0))) != recipe_hash(Recipe())


def test_saved_recipe_is_complete_and_loads_as_the_same_recipe(load, tmp_path):
    recipe = load("", "strides=(1,1,1),(2,2,2)", "loop.rate=1e-5")
    save_recipe(recipe, tmp_path / "recipe.json")
    assert json.loads((tmp_path / "recipe.json").read_text()) == to_dict(recipe)
    assert set(to_dict(recipe)) == {field.name for field in fields(Recipe)}
    assert load_recipe(Recipe, tmp_path / "recipe.json") == recipe


def test_differences_name_key_and_both_values():
    stored = to_dict(Recipe())
    changed = replace(Recipe(), shape=(1, 2, 4), loop=Loop(steps=5, save_every=1))
    assert differences(changed, stored) == [
        "shape was [1, 2, 3], is now [1, 2, 4]",
        "loop.steps was 100, is now 5",
    ]
    assert differences(Recipe(), stored) == []


def test_a_key_that_an_older_version_did_not_know_was_its_default():
    stored = to_dict(Recipe())
    del stored["shape"], stored["loop"]["steps"]
    assert differences(Recipe(), stored) == []
    assert differences(replace(Recipe(), loop=Loop(steps=5)), stored) == [
        "loop.steps was 100, is now 5"
    ]


def test_help_lists_every_key_with_default_and_meaning():
    text = describe(Recipe)
    assert "  loop.steps = 100\n      how long" in text
    assert "  shape = [1, 2, 3]\n      where" in text


SHIPPED = [
    *((PretrainRecipe, path) for path in sorted(RECIPES.glob("*pretrain*.toml"))),
    *((FinetuneRecipe, path) for path in sorted(RECIPES.glob("*finetune*.toml"))),
]


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=[path.name for _, path in SHIPPED])
def test_a_shipped_recipe_loads_and_what_it_says_is_what_is_run(kind, path):
    recipe = to_dict(load_recipe(kind, path))
    for name, value in tomllib.loads(path.read_text()).items():
        for key, said in value.items() if isinstance(value, dict) else [(None, value)]:
            run = recipe[name] if key is None else recipe[name][key]
            assert run == said, f"{name}.{key}"


@dataclass(frozen=True)
class Round:
    radius: float = setting(1.0, "of the round one")
    name: str = setting("round", "kind")


@dataclass(frozen=True)
class Square:
    edge: float = setting(2.0, "of the square one")
    name: str = setting("square", "kind")


@dataclass(frozen=True)
class Shaped:
    shape: Any = choice({"round": Round, "square": Square}, "round")
    count: int = setting(1, "how many")


def shaped(tmp_path, text, *overrides):
    path = tmp_path / "shaped.toml"
    path.write_text(text)
    return load_recipe(Shaped, path, overrides)


def test_a_section_is_of_the_kind_that_its_name_says(tmp_path):
    assert shaped(tmp_path, "count = 2").shape == Round()
    assert shaped(tmp_path, "[shape]\nname = 'square'\nedge = 3.0").shape == Square(3.0)
    recipe = shaped(tmp_path, "", "shape.edge=4.0", "shape.name=square")
    assert isinstance(recipe, Shaped)
    assert to_dict(recipe) == {"shape": {"edge": 4.0, "name": "square"}, "count": 1}


@pytest.mark.parametrize(
    "text", ["shape.name = square", "shape.name='square'", " shape.name=square"]
)
def test_a_kind_is_chosen_however_it_is_spaced_or_quoted(tmp_path, text):
    assert shaped(tmp_path, "", text, "shape.edge = 4.0 ").shape == Square(4.0)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [("[shape]\nname = ['round']", ()), ("[shape]\nname = ''", ()), ("", ("shape.name = oval",))],
)
def test_a_kind_that_is_not_there_is_refused_with_all_that_are(tmp_path, text, overrides):
    with pytest.raises(RecipeError, match=r"shape\.name must be one of round, square, not"):
        shaped(tmp_path, text, *overrides)


def test_keys_of_another_kind_and_unknown_kinds_are_errors(tmp_path):
    with pytest.raises(RecipeError, match=r"unknown key shape\.edge"):
        shaped(tmp_path, "[shape]\nedge = 3.0")
    with pytest.raises(RecipeError, match=r"shape\.name must be one of round, square, not 'oval'"):
        shaped(tmp_path, "[shape]\nname = 'oval'")


def test_the_help_names_the_keys_of_every_kind_below_the_name_that_chooses_it():
    text = describe(Shaped)
    places = [text.index(part) for part in ('"round"   (default)', "  shape.radius", '"square"')]
    assert places == sorted(places) < [text.index("  shape.edge")]
    assert text.count("shape.name") == 2


def test_a_recipe_of_another_command_is_not_taken_for_a_slip_of_the_pen():
    with pytest.raises(RecipeError, match=r"unknown key foreground; --help lists the keys of this"):
        load_recipe(PretrainRecipe, RECIPES / "finetune_cpu.toml")


def test_a_key_of_another_kind_is_told_with_the_kind_that_has_it():
    with pytest.raises(RecipeError, match=r"network\.decoder_convs; it is of .*resenc_unet, not"):
        load_recipe(
            FinetuneRecipe, RECIPES / "finetune_cpu.toml", ["network.name=resenc_classifier"]
        )


def test_the_help_lists_the_words_that_a_key_may_have_and_is_wrapped():
    text = describe(PretrainRecipe)
    assert '  optimizer.schedule = "cosine"   (of cosine, poly, constant)\n' in text
    assert max(map(len, text.splitlines())) <= 100
