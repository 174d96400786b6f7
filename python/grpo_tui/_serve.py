"""A model or a run behind an API that OpenAI's clients speak."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, Union

from ._program import GrpoError, started, words

if TYPE_CHECKING:
    from ._run import Run

# As the program announces it.
SERVING = re.compile(r"^serving (.+) on (http\S+)", re.MULTILINE)


class Server:
    """A running server: `base_url` and `model` are what an OpenAI client takes."""

    def __init__(self, arguments: list[str]):
        import tempfile

        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = started(arguments, stdout=self._log, stderr=self._log)
        try:
            self.model, self.base_url = self._announced(arguments)
        except BaseException:
            self.close()
            raise

    def _announced(self, arguments: list[str]) -> tuple[str, str]:
        while True:
            has_ended = self._process.poll() is not None
            self._log.seek(0)
            text = self._log.read()
            found = SERVING.search(text)
            if found:
                return found[1], found[2]
            if has_ended:
                raise GrpoError(words(text), self._process.returncode, arguments)
            time.sleep(0.02)

    def close(self) -> None:
        """Ends the server; open requests are answered first."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server(model={self.model!r}, base_url={self.base_url!r})"


def serve(
    model: Union[Run, str, os.PathLike[str]], *, listen: str = "127.0.0.1:0", **options: Any
) -> Server:
    """Serves a run's best checkpoint, or any model, until `close()` or the end of `with`.

    `options` are those of `grpo-tui serve`: `cpu=True`, `gpu=1`, `max_completion_tokens=256`.
    """
    from ._run import flags, model_name

    return Server(["serve", model_name(model), "--listen", listen, *flags(options)])
