"""From token ids to text, a piece at a time."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from moorage_runtime.server.stop import StopMatcher

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one sequence as its tokens arrive: whole characters only, cut before a stop string.

    A character whose bytes are spread over tokens comes with its last token; one that never gets complete is left out.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._pending: list[int] = []
        self._stop = StopMatcher(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been seen."""
        return self._stop.matched is not None

    def push(self, ids: Iterable[int]) -> str:
        """The text that these tokens make certain; nothing more after a stop string."""
        text = ""
        for token in ids:
            text += self._decode(token)
        return "" if self.stopped else self._stop.push(text)

    def finish(self) -> str:
        """What was held back, once no more tokens come."""
        if self.stopped:
            return ""
        rest = self._tokenizer.decode(self._pending, skip_special_tokens=True) if self._pending else ""
        text = self._stop.push(rest.rstrip(_REPLACEMENT))
        return text if self.stopped else text + self._stop.finish()

    def _decode(self, token: int) -> str:
        piece = self._decoder.step(self._tokenizer, token)
        if piece is None:
            self._pending.append(token)
            return ""
        self._pending.clear()
        return piece
