"""A griffe extension: what a package's ``__init__`` imports is its public interface.

``from x import y as y`` is how a name is exported here; griffe knows only ``__all__``.
"""

from __future__ import annotations

from typing import Any

import griffe


class Exports(griffe.Extension):
    """Marks the imports of every ``__init__`` as public."""

    def on_alias(self, *, alias: griffe.Alias, **kwargs: Any) -> None:
        """Decide about one imported name."""
        del kwargs
        parent = alias.parent
        if isinstance(parent, griffe.Module) and parent.is_init_module and alias.name[0] != "_":
            alias.public = True
