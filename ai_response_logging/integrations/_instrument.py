"""Recording for a whole process: switched on once, and off again."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError

__all__ = ["Switch"]


class Switch:
    """
    Something that is on or off in this process.

    Args:
        name: The module, as the error names it.
        turn_on: Called by `on`; what it returns turns it off again.

    Threads: Any.
    """

    def __init__(self, name: str, turn_on: Callable[[], Callable[[], object]]) -> None:
        self._name, self._turn_on = name, turn_on
        self._states: list[Callable[[], object]] = []

    def on(self) -> None:
        """
        Turn it on.

        Raises:
            ConfigError: It is on already.
        """
        if self._states:
            raise ConfigError(
                f"{self._name}.instrument() has been called before, and twice would record every call twice; "
                "call uninstrument() first"
            )
        self._states.append(self._turn_on())

    def off(self) -> None:
        """Turn it off; nothing happens if it is not on."""
        if self._states:
            self._states.pop()()
