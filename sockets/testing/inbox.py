"""What a client has received."""

from typing import Any, Callable, Dict, List, Union

from .. import messages
from ..connection import envelopes
from . import contents


class Inbox:
    """The contents that a client has received: each can be taken once."""

    def __init__(self) -> None:
        self._received: List[Any] = []
        self._taken: List[Any] = []

    def add(self, content: Any) -> None:
        """Add ``content``, which was received."""
        self._received.append(content)

    def find(self, fields: Dict[str, Any]) -> Any:
        """Return the first content that has ``fields`` and was not taken yet, ``None`` if there is none."""
        for content in self._received:
            if contents.has_fields(content, fields):
                return content
        return None

    def take(self, fields: Dict[str, Any]) -> Any:
        """Take the first content that has ``fields`` and return it, ``None`` if there is none."""
        content = self.find(fields)
        return None if content is None else self._take(content)

    def take_first(self, is_it: Callable[[Any], bool], is_noted: bool = True) -> Any:
        """Take the first content for which ``is_it`` is true, ``None`` if there is none. Without ``is_noted``, drop it."""
        for content in self._received:
            if is_it(content):
                if is_noted:
                    return self._take(content)
                self._received.remove(content)
                return content
        return None

    def take_reply(self, ref: str) -> Union[Dict[str, Any], bytes, None]:
        """Take the reply to the request ``ref`` and return it without its ``ref``; ``None`` if there is none."""
        reply = self.take({messages.REF: ref})
        if reply is not None:
            return {name: value for name, value in reply.items() if name != messages.REF}
        for content in self._received:
            envelope, data = envelopes.unwrap(content) if isinstance(content, bytes) else ({}, None)
            if envelope.get(messages.REF) == ref:
                self._take(content)
                return data
        return None

    def take_all(self) -> List[Any]:
        """Take all contents that were not taken yet, and return them."""
        received, self._received = self._received, []
        self._taken += received
        return received

    def lines(self) -> List[str]:
        """Return lines for the message of a failed assertion: what was received and what was taken before."""
        lines = ['Received:'] + [f'  {content!r}' for content in self._received or ['nothing']]
        if self._taken:
            lines += ['Taken before:'] + [f'  {content!r}' for content in self._taken]
        return lines

    def _take(self, content: Any) -> Any:
        self._received.remove(content)
        self._taken.append(content)
        return content
