"""Recipes: typed, immutable settings read from TOML and changed on the command line.

A recipe is a frozen dataclass whose fields are declared with `setting`, or with `section` where
they are such dataclasses themselves. A file may leave keys out; what then holds is in the resolved
recipe that every run saves, and that file is itself a recipe.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import json
import math
import re
import textwrap
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.files import write_json

R = TypeVar("R")
_UNKNOWN = object()


class RecipeError(MIMSegmentError):
    """A recipe or override with an unknown key, a wrong type or an impossible value."""


def setting(default: Any, help: str, *, affects_result: bool = True) -> Any:
    """Declare a recipe field; ``affects_result=False`` keeps it out of the recipe's hash."""
    metadata = {"help": help, "affects_result": affects_result}
    return dataclasses.field(default=default, metadata=metadata)


def table(help: str) -> Any:
    """Declare a field that is a TOML table with keys of the user's own; empty by default."""
    metadata = {"help": help, "affects_result": True}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def section(cls: type) -> Any:
    """Declare a recipe field that is itself a dataclass of settings."""
    return dataclasses.field(default_factory=cls)


def choice(variants: Mapping[str, type], default: str) -> Any:
    """Declare a section that is one of several kinds, by its key ``name``.

    ``variants`` maps a name to a dataclass of settings, which has that name as its field ``name``.
    """
    metadata = {"variants": variants, "default": default}
    return dataclasses.field(default_factory=variants[default], metadata=metadata)


def load_recipe(cls: type[R], path: str | Path, overrides: Sequence[str] = ()) -> R:
    """Read a ``.toml`` (or a run's ``recipe.json``) into ``cls`` and apply ``key=value`` overrides.

    Raises RecipeError naming the file or override, the key and, for an unknown key, the nearest.
    """
    path = Path(path)
    values = _read(path)
    cls = _narrow(cls, values, overrides)
    _check_keys(cls, values, f"{path}: ")
    for text in overrides:
        _override(cls, values, text)
    return _build(cls, values, "")


def to_dict(recipe: Any) -> dict:
    """The recipe as plain dictionaries, lists, numbers and strings (what JSON can hold)."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def recipe_hash(recipe: Any) -> str:
    """Twelve hexadecimal digits over everything that can change a result, whatever its order."""
    values = {
        key: value
        for key, value, field in _flatten(recipe)
        if field.metadata.get("affects_result", True)
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def save_recipe(recipe: Any, path: str | Path) -> None:
    """Write the resolved recipe as JSON; `load_recipe` reads it back."""
    write_json(path, to_dict(recipe))


def differences(recipe: Any, stored: dict) -> list[str]:
    """Result-changing keys in which ``recipe`` differs from ``stored`` (see `to_dict`).

    What ``stored`` does not have, because the program did not know it then, was its default.
    """
    lines = []
    for key, value, field in _flatten(recipe):
        before = stored
        for part in key.split("."):
            before = before.get(part, _UNKNOWN) if isinstance(before, dict) else _UNKNOWN
        before = _plain(_default(field)) if before is _UNKNOWN else before
        if field.metadata.get("affects_result", True) and before != _plain(value):
            lines.append(f"{key} was {before}, is now {_plain(value)}")
    return lines


def _default(field: dataclasses.Field) -> Any:
    is_plain = field.default is not dataclasses.MISSING
    return field.default if is_plain else field.default_factory()


def describe(cls: type, prefix: str = "") -> str:
    """For ``--help``: of each key its default, its words where it has such, and its meaning.

    Keys that only one kind of a `choice` has stand below the key ``name`` that chooses it.
    """
    return "\n".join(_described(cls, prefix, "  "))


def _described(cls: type, prefix: str, indent: str) -> Iterator[str]:
    for field, kind in _fields(cls):
        key = prefix + field.name
        if "variants" in field.metadata:
            default = field.metadata["default"]
            for name, variant in field.metadata["variants"].items():
                yield from _described_variant(variant, f"{key}.", indent, name == default)
        elif dataclasses.is_dataclass(kind):
            yield from _described(kind, f"{key}.", indent)
        else:
            missing = field.default is dataclasses.MISSING
            default = json.dumps({} if missing else _plain(field.default))
            words = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
            among = f"   (of {', '.join(map(str, words))})" if len(words) > 1 else ""
            yield f"{indent}{key} = {default}{among}\n{_wrapped(field.metadata['help'], indent)}"


def _described_variant(variant: type, prefix: str, indent: str, default: bool) -> Iterator[str]:
    """Its name first, then what is to be set of it alone."""
    fields = {field.name: field for field in dataclasses.fields(variant)}
    name = fields["name"]
    title = f'{indent}{prefix}name = "{name.default}"{"   (default)" if default else ""}'
    only = ", with these keys:" if len(fields) > 1 else ""
    yield f"{title}\n{_wrapped(name.metadata['help'] + only, indent)}"
    own = _described(variant, prefix, f"{indent}  ")
    yield from (text for text in own if not text.strip().startswith(f"{prefix}name = "))


def _wrapped(text: str, indent: str) -> str:
    inner = f"{indent}    "
    return textwrap.fill(text, 100, initial_indent=inner, subsequent_indent=inner)


def _read(path: Path) -> dict:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise RecipeError(f"There is no recipe {path}; training/recipes holds some.") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise RecipeError(f"{path} is not a readable recipe: {error}") from error


def _narrow(cls: type[R], values: dict, overrides: Sequence[str]) -> type[R]:
    """``cls`` with every `choice` made: a subclass whose sections are of the kinds named."""
    named = {key: _unquoted(raw) for key, equals, raw in map(_parts, overrides) if equals}
    chosen = []
    for field, _ in _fields(cls):
        if "variants" not in field.metadata:
            continue
        variants, inside = field.metadata["variants"], values.get(field.name, {})
        written = inside if isinstance(inside, dict) else {}
        name = written.get("name", field.metadata["default"])
        name = named.get(f"{field.name}.name", name)
        if not isinstance(name, str) or name not in variants:
            raise RecipeError(
                f"{field.name}.name must be one of {', '.join(variants)}, not {name!r}."
            )
        chosen.append((field.name, variants[name], section(variants[name])))
    if not chosen:
        return cls
    names = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    return dataclasses.make_dataclass(
        cls.__name__, chosen, bases=(cls,), frozen=True, namespace=names
    )


def _kinds(cls: type) -> dict[str, Any]:
    return {field.name: kind for field, kind in _fields(cls)}


def _fields(cls: type) -> Iterator[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield field, hints[field.name]


def _flatten(recipe: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flatten(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, field


def _keys(cls: type, prefix: str = "") -> Iterator[str]:
    for field, kind in _fields(cls):
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _check_keys(recipe: type, values: dict, where: str, prefix: str = "") -> None:
    known = set(_keys(recipe))
    for name, value in values.items():
        key = prefix + name
        if any(other.startswith(f"{key}.") for other in known):
            if not isinstance(value, dict):
                raise RecipeError(f"{where}{key} is a section, not a value.")
            _check_keys(recipe, value, where, f"{key}.")
        elif key not in known:
            raise _unknown(recipe, key, where)


def _unknown(cls: type, key: str, where: str) -> RecipeError:
    """``cls`` is the whole recipe, ``key`` dotted; the right name elsewhere beats a similar one."""
    kinds = _other_kinds(cls, key)
    if kinds:
        section = key.partition(".")[0]
        chosen = _kinds(cls)[section]().name
        return RecipeError(
            f"{where}unknown key {key}; it is of {section}.name={' or '.join(kinds)}, not of "
            f"{chosen}: leave it out, or take a recipe for {chosen}."
        )
    known = list(_keys(cls))
    last = key.rsplit(".", 1)[-1]
    near = [name for name in known if name.rsplit(".", 1)[-1] == last]
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    advice = f"did you mean {near[0]}?" if near else "--help lists the keys of this command."
    return RecipeError(f"{where}unknown key {key}; {advice}")


def _other_kinds(cls: type, key: str) -> list[str]:
    """The names of the kinds of a `choice` that have ``key``, which the one that was made lacks."""
    section, _, inside = key.partition(".")
    declared = (
        f
        for base in cls.__mro__
        if dataclasses.is_dataclass(base)
        for f in dataclasses.fields(base)
        if f.name == section and "variants" in f.metadata
    )
    variants = next((field.metadata["variants"] for field in declared), {})
    return [name for name, variant in variants.items() if inside in set(_keys(variant))]


def normalized(override: str) -> str:
    """``key=value`` without the spaces that people put around both."""
    return "".join(_parts(override))


def _override(cls: type, values: dict, text: str) -> None:
    """Put one ``dotted.key=value`` into ``values``."""
    key, equals, raw = _parts(text)
    if not equals:
        raise RecipeError(f"'{text}' is not an override; write key=value.")
    if key not in _keys(cls):
        raise _unknown(cls, key, f"'{text}': ")
    *sections, last = key.split(".")
    kind = cls
    for name in sections:
        kind = _kinds(kind)[name]
        values = values.setdefault(name, {})
    values[last] = _parse(raw, _kinds(kind)[last])


def _parts(text: str) -> tuple[str, str, str]:
    """Key, equals sign and value of an override, without the spaces that people put around them."""
    key, equals, raw = text.partition("=")
    return key.strip(), equals, raw.strip()


def _unquoted(raw: str) -> str:
    return raw.strip("\"'")


def _parse(raw: str, kind: Any) -> Any:
    """Read a value typed by hand; its type is checked later, with the whole recipe."""
    if kind is str or typing.get_origin(kind) is typing.Literal:
        return _unquoted(raw)
    literal = re.sub(r"\b(true|false)\b", lambda match: match[0].capitalize(), raw)
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        # A shell takes quotes away, and words need none.
        words = [_unquoted(word.strip()) for word in raw.strip("[]()").split(",")]
        return words if kind == tuple[str, ...] else raw
    is_list = typing.get_origin(kind) is tuple
    return (value,) if is_list and not isinstance(value, list | tuple) else value


def _build(cls: type[R], values: dict, prefix: str) -> R:
    arguments = {}
    for field, kind in _fields(cls):
        key = prefix + field.name
        if dataclasses.is_dataclass(kind):
            arguments[field.name] = _build(kind, values.get(field.name, {}), key + ".")
        elif field.name in values:
            arguments[field.name] = _convert(values[field.name], kind, key)
    return cls(**arguments)


def _convert(value: Any, kind: Any, key: str) -> Any:
    """``value`` as ``kind``, or a RecipeError that says what was expected."""
    origin = typing.get_origin(kind)
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_tuple(value, typing.get_args(kind), key)
    if origin is typing.Literal and value in typing.get_args(kind):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    # For isinstance a bool is an int, but 'true' is no number of steps.
    elif kind in (int, bool, str, dict) and type(value) is kind:
        return value
    raise RecipeError(f"{key} must be {_name(kind)}, not {json.dumps(_plain(value))}.")


def _convert_tuple(value: Sequence, kinds: tuple, key: str) -> tuple:
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise RecipeError(f"{key} must have {len(kinds)} entries, not {len(value)}.")
    return tuple(
        _convert(entry, kind, f"{key}[{i}]")
        for i, (entry, kind) in enumerate(zip(value, kinds, strict=True))
    )


def _name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        many = arguments[-1] is Ellipsis
        return f"a list of {_name(arguments[0])}" if many else f"a list of {len(arguments)} entries"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    names[dict] = "a table"
    return names[kind]


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value
