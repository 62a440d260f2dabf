"""Read the YAML file of a recipe; it comes from users and is not trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from landscale.errors import BadInput, reason
from landscale.runtime.files import check_regular

MAX_BYTES = 1 << 20


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses a key that is written twice, of which YAML would take the last in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if repeated := [key for key in written if written.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated[0]} is written twice")
        return super().construct_mapping(node, deep)


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe's file, not yet checked.

    Raises:
        BadInput: it is unreadable, too large, not valid YAML, or holds something else than keys and values.
    """
    check_regular(path, MAX_BYTES)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys) or {}
    except RecursionError:
        raise BadInput(path, "is nested too deeply, or contains itself") from None
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise BadInput(path, f"is not valid YAML ({reason(error)})") from None
    if not isinstance(content, dict):
        raise BadInput(path, "is not a recipe: expected keys and values")
    return content
