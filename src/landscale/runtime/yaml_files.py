"""Read YAML files, which come from users and are not trusted."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from landscale.errors import BadInput, reason
from landscale.runtime.files import check_regular

MAX_BYTES = 1 << 20  # of a YAML file; recipes have some kilobytes


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML without what makes its meaning or its size surprising: repeated keys, and aliases, which can refer to each other."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem=f"found the alias *{event.anchor}", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise yaml.MarkedYAMLError(problem=f"{repeated[0]} is listed twice", problem_mark=node.start_mark)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def read_yaml_object(path: str | Path, expected: str) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty file has none.

    Args:
        path: the file.
        expected: what the file should be, for the error message, such as "a recipe".

    Raises:
        BadInput: the file is missing or unreadable, no regular file, larger than MAX_BYTES, or not valid YAML; it has a key twice
            or an alias; or it is not a mapping.
    """
    path = Path(path)
    check_regular(path, MAX_BYTES)
    try:
        content = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except RecursionError:
        raise BadInput(path, "is not valid YAML: it is nested too deeply") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(path, f"is not valid YAML ({reason(error)})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(path, f"is not {expected}: expected keys and values")
    return content
