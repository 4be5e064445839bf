"""A YAML file with the line of every key; a key that stands twice is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    import yaml


def read_yaml(name: str) -> tuple[Any, dict[str, int]]:
    """
    Return what the YAML file *name* holds, and the line of each of its keys by path, as in ``models[1].seed``.

    Raises:
        ConfigError: It cannot be read, is no YAML, or has a key twice; file and line are named.
    """
    import yaml

    try:
        with open(name, encoding="utf-8-sig") as file:  # some editors begin with a byte order mark
            loader = yaml.SafeLoader(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the plan {name} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the plan {name} is no YAML: {_in_one_line(error)}") from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines = dict(_lines_of(node, "", name, set()))
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise ConfigError(f"the plan {name} is no YAML: {_in_one_line(error)}") from error
    except RecursionError:
        raise ConfigError(f"the plan {name} is nested too deeply") from None
    except ValueError as error:  # what looks like a date and is none
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the plan {name} is no YAML: {error}; quotes make it a text") from error
    finally:
        loader.dispose()


def _in_one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    context = f"{error.context}, " if getattr(error, "context", None) else ""  # type: ignore[attr-defined]  # a MarkedYAMLError
    return f"{context}{problem} in line {mark.line + 1}, column {mark.column + 1}"


def _lines_of(node: yaml.Node, path: str, name: str, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Yield path and line of everything below *node*; what an alias repeats is looked at once."""
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            yield f"{path}[{at}]", item.start_mark.line + 1
            yield from _lines_of(item, f"{path}[{at}]", name, seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            inner, line = f"{path}.{key.value}" if path else key.value, key.start_mark.line + 1
            # A merge, <<, may stand beside the key that overrides it, but not the key itself twice.
            if key.value in first and key.tag != "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"{key.value} stands twice, in lines {first[key.value]} and {line}; only the last would count",
                    f"{inner} in {name}, line {line}",
                )
            first[key.value] = line
            yield inner, line
            yield from _lines_of(item, inner, name, seen)
