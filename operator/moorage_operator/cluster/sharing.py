"""Equal text held once, whoever parsed it how often.

The objects of a cluster say the same in the same words: names of fields, labels, images, paths. Each JSON document
brings its own copies, which were half of the memory that 1,000 deployments took.
"""

from typing import Any, Final

_WORDS: Final = 8192
"""About so many are remembered. Names and times of single objects fill it, too, and then it begins anew: what it gave
out stays as it is, and only what comes later holds a second copy."""


class Sharing:
    """Remembers text. `sys.intern` would do for names of fields, but some Pythons never forget what it is given."""

    def __init__(self) -> None:
        """Start with none."""
        self._words: dict[str, str] = {}

    def __len__(self) -> int:
        """How many words are remembered."""
        return len(self._words)

    def of(self, document: Any) -> Any:
        """What `document`, parsed from JSON, says: dicts and lists of its own, in words that others hold as well."""
        if len(self._words) >= _WORDS:
            self._words.clear()
        return self._of(document)

    def _of(self, value: Any) -> Any:
        kind, words = type(value), self._words  # exact types: JSON has no others, and each leaf of each event is asked
        if kind is str:
            return words.setdefault(value, value)
        if kind is dict:
            return {words.setdefault(name, name): self._of(one) for name, one in value.items()}
        if kind is list:
            return [self._of(one) for one in value]
        return value
