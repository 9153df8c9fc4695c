"""A client that was away, and gets what it has missed of the streams that it follows."""

import contextlib
import itertools
from typing import Any, ContextManager, Dict, Iterator, List, Tuple

from .. import messages
from .inbox import Inbox

_refs = itertools.count(1)

# The streams of demultiplexers around a content, the outermost first, and the name of a stream of messages.
_Key = Tuple[Tuple[str, ...], str]


class StreamReader:
    """What ``SocketClient`` does about streams; it knows how far it has read each of them."""

    # Of the client.
    close: Any
    connect: Any
    send_json: Any
    _settle: Any
    _state: Any

    def __init__(self) -> None:
        self._inbox = Inbox()
        self._positions: Dict[_Key, Dict[str, Any]] = {}
        # Where they stand, as this connection has said.
        self._ends: Dict[_Key, Dict[str, Any]] = {}
        self._lost: List[str] = []

    @property
    def lost(self) -> List[str]:
        """The names of the streams of which messages that this connection has missed were not kept any more."""
        return list(self._lost)

    def away(self) -> ContextManager[None]:
        """Lose the connection, now; after the block of a ``with``, connect again, and ``resume()``."""
        self._need_connection()
        self.close(1006)
        return self._back()

    @contextlib.contextmanager
    def _back(self) -> Iterator[None]:
        yield
        self.connect()
        self.resume()

    def _need_connection(self) -> None:
        if self._state.name == 'new':
            raise RuntimeError(f'{self!r} has no connection: {self._state.reason()}.')

    def resume(self) -> None:
        """Ask for what was missed of the streams that the connection follows, as ``sockets.js`` does by itself.

        The messages are then received, each once and in order. Streams of which some are not kept any more are in ``lost``.
        """
        __tracebackhide__ = True
        self._need_connection()
        self._settle()
        while True:
            behind = {key: at for key, at in self._positions.items() if self._ends.get(key, at) != at}
            if not behind:
                return
            key = next(iter(behind))
            self._fill(key, self._ask(key, behind[key]))

    def _ask(self, key: _Key, position: Dict[str, Any]) -> Any:
        """Return what the server answers to a client that has read up to ``position``."""
        __tracebackhide__ = True
        within, name = key
        ref = f'resume-{next(_refs)}'
        request = {messages.TYPE: messages.RESUME, messages.REF: ref, 'streams': {name: position}}
        self.send_json(_wrapped(within, request))
        answer = self._inbox.take_first(lambda content: _unwrapped(content)[1].get(messages.REF) == ref) or {}
        part = _unwrapped(answer)[1].get('streams', {}).get(name)
        if part is None:
            raise AssertionError(f'{self!r} got nothing of the stream {name!r} that it follows: {answer}.')
        return part

    def _fill(self, key: _Key, part: Any) -> None:
        within, name = key
        # Those that were pushed meanwhile come again, in their place.
        while self._inbox.take_first(lambda content: self._is_after(content, key), is_noted=False):
            pass
        for message in part['messages']:
            self._inbox.add(_wrapped(within, message))
        self._positions[key] = {'epoch': part['epoch'], 'offset': part['offset']}
        if part['lost']:
            self._lost.append(name)
        if not part['more']:
            self._ends[key] = self._positions[key]
        elif not part['messages']:
            raise AssertionError(f'{self!r} is told that there is more of the stream {name!r}, and gets nothing.')

    def _is_after(self, content: Any, key: _Key) -> bool:
        """Whether ``content`` is a message of that stream which comes after what was missed."""
        kept_key, kept = _place_of(content, messages.KEPT)
        position = self._positions[key]
        return kept_key == key and (kept['epoch'] != position['epoch'] or kept['offset'] > position['offset'])

    def _forget_ends(self) -> None:
        self._ends = {}
        self._lost = []

    def _receive(self, content: Any) -> None:
        """Add ``content``, which was received, and note what it says about a stream."""
        self._inbox.add(content)
        key, kept = _place_of(content, messages.KEPT)
        if key is not None:
            self._move(key, kept)
        key, end = _place_of(content, None)
        if key is not None:
            following = _unwrapped(content)[1]
            if not following.get('again'):
                self._positions.setdefault(key, following.get('since') or end)
            self._adopt(key, end['epoch'])
            self._ends[key] = end

    def _move(self, key: _Key, kept: Dict[str, Any]) -> None:
        position = self._positions.setdefault(key, {**kept, 'offset': kept['offset'] - 1})
        self._adopt(key, kept['epoch'])
        position = self._positions[key]
        if kept == {'epoch': position['epoch'], 'offset': position['offset'] + 1}:
            was_at_end = self._ends.get(key, position) == position
            self._positions[key] = kept
            if was_at_end:
                self._ends[key] = kept
        elif key in self._ends:
            self._ends[key] = kept

    def _adopt(self, key: _Key, epoch: str) -> None:
        # A stream that has no message yet gets its epoch with the first one.
        for positions in (self._positions, self._ends):
            if positions.get(key) == {'epoch': '', 'offset': 0}:
                positions[key] = {'epoch': epoch, 'offset': 0}


def _unwrapped(content: Any) -> Tuple[Tuple[str, ...], Dict[str, Any]]:
    """Return the streams of demultiplexers around ``content``, and the content in the innermost."""
    within: Tuple[str, ...] = ()
    # A message of a stream and an answer may have the keys of an envelope, too.
    of_a_message = {messages.TYPE, messages.REF, messages.KEPT}
    while (
        isinstance(content, dict)
        and isinstance(content.get(messages.PAYLOAD), dict)
        and of_a_message.isdisjoint(content)
    ):
        within = (*within, str(content.get(messages.STREAM)))
        content = content[messages.PAYLOAD]
    return within, content if isinstance(content, dict) else {}


def _wrapped(within: Tuple[str, ...], content: Dict[str, Any]) -> Dict[str, Any]:
    for name in reversed(within):
        content = {messages.STREAM: name, messages.PAYLOAD: content}
    return content


def _place_of(content: Any, field: Any) -> Any:
    """Return the key and the position that ``content`` names in its ``field``, or as a ``FOLLOWING``; ``None`` twice."""
    within, inner = _unwrapped(content)
    place = inner.get(field) if field is not None else inner if inner.get(messages.TYPE) == messages.FOLLOWING else None
    if not (isinstance(place, dict) and {'stream', 'epoch', 'offset'} <= set(place)):
        return None, None
    return (within, place['stream']), {'epoch': place['epoch'], 'offset': place['offset']}
