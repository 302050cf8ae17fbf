"""Reading a model's yaml. It may come from anybody, so it is bounded and can name nothing outside of itself.

A few lines whose aliases or ``${name}`` references point at one another can stand for billions of nodes, so what a file stands for is counted
before it is written out. References to the environment (``${oc.env:PASSWORD}``) and all other resolvers are refused: a config has no business there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.errors import ModelError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from yaml import Node  # type: ignore[import-untyped]

MAX_BYTES = 1 << 17
MAX_NODES = 20_000
"""Keys and values of a config, written out; those of sam2 have some 200."""
_DEEPEST = 50
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")


def read_config(path: Path) -> DictConfig:
    """The yaml, its references to other parts of itself resolved.

    Raises:
        ModelError: too large, refers to more than itself, or holds no mapping with ``model`` in it.
        OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException: unreadable.
    """
    from omegaconf import DictConfig, OmegaConf
    from yaml import SafeLoader, compose

    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _too_large(path)
    try:
        tree = compose(content.decode("utf-8"), SafeLoader)
        if tree is None or _count(tree, {}, path) > MAX_NODES:
            raise _no_model(path) if tree is None else _too_large(path)
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise _no_model(path)
        plain = _Resolver(OmegaConf.to_container(config), path).resolved()
    except RecursionError:
        raise _too_large(path) from None
    config = OmegaConf.create(plain)
    if not isinstance(config, DictConfig) or not isinstance(config.get("model"), DictConfig):
        raise _no_model(path)
    return config


def _count(node: Node, known: dict[int, int], path: Path) -> int:
    """Nodes below and including this one, aliases written out; every node is visited once."""
    number = id(node)
    if number in known:
        if known[number] < 0:
            raise ModelError(f"model config {str(path)!r} cannot be built: it contains itself", _HINT)
        return known[number]
    known[number] = -1
    total = 1
    if isinstance(node.value, list):
        for item in node.value:
            total += sum(_count(part, known, path) for part in (item if isinstance(item, tuple) else (item,)))
    known[number] = total
    return total


class _Resolver:
    """Writes out ``${name}``, which must be a whole value, from the config itself."""

    def __init__(self, root: Any, path: Path) -> None:
        self._root = root
        self._path = path
        self._left = MAX_NODES

    def resolved(self) -> Any:
        return self._write_out(self._root, 0)

    def _write_out(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise _too_large(self._path)
        if isinstance(value, dict):
            return {key: self._write_out(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self._write_out(item, depth + 1) for item in value]
        if isinstance(value, str) and "${" in value:
            return self._write_out(self._referred(value), depth + 1)
        return value

    def _referred(self, text: str) -> Any:
        reference = _REFERENCE.fullmatch(text)
        found = self._root
        for step in reference[1].split(".") if reference else ():
            found = found.get(step) if isinstance(found, dict) else None
        if reference is None or found is None:
            raise ModelError(
                f"model config {str(self._path)!r} cannot be built: it refers to {text[:100]!r}",
                "A reference is a whole value, ${name.of.a.key}, and names something in the same file.",
            )
        return found


_HINT = "Use a SAM 2 model yaml, such as those inside the sam2 package."


def _too_large(path: Path) -> ModelError:
    return ModelError(
        f"model config {str(path)!r} is larger than any model's: more than {MAX_NODES} values or {MAX_BYTES} bytes",
        _HINT,
    )


def _no_model(path: Path) -> ModelError:
    return ModelError(f"model config {str(path)!r} has no 'model' section", "Use a SAM 2 model yaml.")
