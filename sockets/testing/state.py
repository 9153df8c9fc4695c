"""The state of a connection, as its client knows it."""

from typing import Optional


class State:
    """``name`` is ``new``, ``connecting``, ``open``, ``closed`` or ``refused``; ``close_code`` is set when it ends."""

    def __init__(self) -> None:
        self.name = 'new'
        self.close_code: Optional[int] = None

    def begin(self) -> None:
        """The client connects, for the first time or again."""
        self.name, self.close_code = 'connecting', None

    def open(self) -> None:
        """The server accepts."""
        self.name = 'open'

    def end(self, code: Optional[int]) -> Optional[int]:
        """Either side ends the connection; return its close code, which is not ``code`` if it was never accepted."""
        self.name, self.close_code = ('closed', code) if self.name == 'open' else ('refused', 1006)
        return self.close_code

    def has_ended(self) -> bool:
        """Return whether there is no connection, not yet or not any more."""
        return self.name not in ('connecting', 'open')

    def reason(self) -> str:
        """Return why a client cannot send."""
        return {
            'new': 'call its connect() first',
            'connecting': 'nobody has accepted its connection',
            'refused': 'its connection was refused, and the log says why',
            'closed': f'its connection was closed with {self.close_code}',
        }[self.name]
