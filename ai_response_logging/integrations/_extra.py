"""What an extra brings, imported when it is used, and named where it is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import MissingExtraError

__all__ = ["brought_by"]


def brought_by(extra: str, module: str) -> ModuleType:
    """
    Return the *module* that the *extra* brings.

    Raises:
        MissingExtraError: Its package is not installed.
        ModuleNotFoundError: It is there, and something that it needs is not: that has a message of its own.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtraError(package.replace("_", "-"), extra) from None
