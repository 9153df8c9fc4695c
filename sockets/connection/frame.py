"""One frame's life: from text to function to reply. Nothing may escape to the engine but what it wants to see."""

import logging
import time
import types

from .. import conf, engine, messages, signals
from ..access import demands, limits
from ..contracts import refusals
from ..exceptions import ConnectionRevoked, FrameError, PermissionMissing, RowMissing
from ..execution import steps
from . import calls, envelopes, identity_cache, quick, replies
from .attempts import attempt
from .identity import Identity
from .memory import memories
from .signs_of_life import signs

logger = logging.getLogger('sockets')


def receive(handler, text, data):
    """Return a generator of the steps in which a frame of the connection of ``handler`` is handled: a ``text``, or the
    bytes ``data``; the other one is ``None``. The first one does not wait.
    """
    return handler._frame_class(handler).handle(text, data)


class Frame:
    """A frame, read, admitted, answered. ``outcome`` is what became of it, as ``message_handled`` tells it.

    Until it ``is_admitted``, no function has been called with it, and it may be dropped.
    """

    __slots__ = ('handler', 'is_admitted', 'outcome')

    def __init__(self, handler):
        self.handler = handler
        self.is_admitted = False
        self.outcome = 'ok'

    def handle(self, text, data):
        """Yield the steps to the answer, in this order."""
        handler = self.handler
        handler._frame = self
        try:
            connection, ref, began = handler._connection, None, time.perf_counter()
            memory = memories.get(connection.name)
            identity = handler._identity = Identity(connection, memory, handler._deferred)
            if memory.is_due(time.monotonic(), signs.resolution()) and not signs.take(connection, memory):
                yield None
                attempt(handler, _note_life, connection, memory)
            try:
                content = handler.content = self._read(memory, text, data)
                ref = self.ref()
                if handler._is_quick:
                    function, may_wait = quick.look(handler, memory, content)
                    if may_wait:
                        yield None
                        if function is not None:
                            # It asks for the user where nothing may wait.
                            identity.load()
                    else:
                        identity.function = function
                self.admit(memory, content)
                self.is_admitted = True
                reply = yield from self.answer(content, ref)
            except BaseException as error:
                if isinstance(error, (steps.Abandoned, engine.current().escaping)):
                    raise
                reply, error = None, engine.current().meaning_of(refusals.frame_error(error))
                self.outcome = outcome_of(error)
                attempt(handler, self.fail, error, self.ref() if ref is None else ref)
            finally:
                identity.must_hold = False
            self._conclude(memory, reply)
            if signals.message_handled.receivers:
                yield None
                self._announce(began)
        finally:
            # It knows the handler, and a circle of references would keep both for a while.
            handler._frame = None

    def ref(self):
        """Return the ``ref`` of the frame, ``None`` if it has none or cannot be understood."""
        content = self.handler.content
        return (content if isinstance(content, dict) else self.handler.envelope).get(messages.REF)

    def admit(self, memory, content):
        """Raise unless ``content`` is within its rate, and of somebody who may send anything here."""
        handler = self.handler
        if handler._route_table.has_rates or conf.MAX_FRAMES_PER_SECOND is not None:
            limits.check_rate(memory, handler, content)
        handler._identity.must_hold = True
        if memory.is_doubtful():
            handler._identity.confirm()
        demands.check_frame(handler)

    def answer(self, content, ref):
        """Yield the steps to the message that answers ``content``; return that, or ``None`` if it needs none."""
        handler = self.handler
        if calls.is_plain(type(handler)):
            calls.note(handler, 'receive')
            result = calls.start(handler, content)
            if type(result) is types.CoroutineType and handler._identity.function is not None:
                result = yield result
            if result is not None and type(result) is not dict:
                result = yield from calls.finish(handler, result)
        else:
            result = yield from calls.pass_on(handler, 'receive', content)
        # With DEBUG, the answer is compared with what the handler declares.
        if conf.of_django('DEBUG') or handler._identity.has_changes():
            yield None
        handler._identity.save()
        if handler._connection.closed and isinstance(result, (dict, *replies.DATA)):
            self._log_dropped()
            return None
        return replies.reply_of(handler, result, ref)

    def fail(self, error, ref):
        """Answer a frame whose handling raised ``error``."""
        handler = self.handler
        if isinstance(error, ConnectionRevoked):
            return replies.turn_away(handler, error, ref)
        if isinstance(error, (engine.Closing, engine.Special)):
            if ref is not None and not handler.closed:
                handler._connection.send(replies.reply_of(handler, None, ref))
            if isinstance(error, engine.Special):
                return error.run(handler.message)
            return replies.close_as_asked(handler, error.code)
        denied = isinstance(error, (engine.Denied, PermissionMissing))
        if isinstance(error, FrameError):
            content = replies.error_content(error)
            if handler.closed:
                self._log_dropped()
        elif denied:
            content = messages.error(messages.NOT_ALLOWED, getattr(error, 'details', 'You may not do this.'))
        else:
            content = replies.server_error(handler, 'a frame', error)
        reply = self._error_reply(content, ref)
        if not handler.closed:
            handler._connection.send(reply)
        if denied:
            handler._connection.close(messages.CLOSE_NOT_ALLOWED)

    def last_message(self):
        """Return the message that goes before the close of a connection whose function takes too long."""
        # A client that got no answer would send it again, to hang the next thread.
        return replies.reply_of(self.handler, messages.error(messages.SERVER_ERROR, 'This takes too long.'), self.ref())

    def _conclude(self, memory, reply):
        """Send the ``reply``, if there is one, and close a connection of which this was one bad frame too many."""
        handler, connection = self.handler, self.handler._connection
        code = None if self.outcome == 'ok' and not memory.bad_frames else limits.code_after(memory, self.outcome)
        if reply is not None and not connection.closed:
            attempt(handler, connection.send, reply, code is None)
        if code is not None:
            logger.info(
                'Closing %s at %r with %d: %d more of its frames were bad than good, the last one %s',
                connection.name,
                handler.path,
                code,
                memory.bad_frames,
                self.outcome,
            )
            attempt(handler, connection.close, code)

    def _announce(self, began):
        handler, route = self.handler, self.handler._route
        signals.announce(
            signals.message_handled,
            sender=type(handler),
            socket=handler,
            outcome=self.outcome,
            route=None if route is None else route.name,
            duration=time.perf_counter() - began,
        )

    def _read(self, memory, text, data):
        """Return the content of a frame. One that cannot be understood takes a token of the rate like any other."""
        try:
            if text is not None and len(text) * 4 <= conf.MAX_MESSAGE_SIZE and not self.handler._has_decoder:
                # As nearly all are: a character has at most four bytes.
                return messages.decode(text)
            return self._decode(text, data)
        except BaseException:
            limits.check_rate(memory, self.handler, None)
            raise

    def _decode(self, text, data):
        handler = self.handler
        max_size, is_taken = conf.MAX_MESSAGE_SIZE, False
        if data is not None:
            is_taken = handler._route_table.binary is not None
            max_size = is_taken and conf.MAX_BINARY_SIZE or max_size
            # One that nobody takes is refused with its ref. To a decoder of the project's own, it is no envelope.
            if is_taken or not handler._has_decoder:
                handler.envelope, data = envelopes.unwrap(data)
        messages.check_size(data or '' if text is None else text, max_size)
        if is_taken:
            return data
        try:
            content = handler.decode(text, data)
        except ValueError as error:
            raise FrameError(messages.INVALID_JSON, f'This frame cannot be decoded: {error}.')
        if not isinstance(content, dict):
            raise FrameError(messages.INVALID_MESSAGE, 'A frame is an object with a type.')
        return content

    def _error_reply(self, content, ref):
        handler = self.handler
        try:
            return replies.reply_of(handler, content, ref)
        except BaseException as failure:
            # What a FrameError says may be no JSON.
            self.outcome = messages.SERVER_ERROR
            return replies.reply_of_failure(handler, failure, ref)

    def _log_dropped(self):
        handler = self.handler
        logger.warning(
            '%s at %r dropped its answer to a frame of %r: it had closed the connection before it returned. '
            'Send the answer with send_json() and close then.',
            type(handler).__name__,
            handler.path,
            handler.content.get(messages.TYPE) if isinstance(handler.content, dict) else 'bytes',
        )


def outcome_of(error):
    """Return what ``message_handled`` calls a frame that ended with ``error``."""
    if isinstance(error, ConnectionRevoked):
        return 'revoked'
    if isinstance(error, FrameError):
        return error.code
    if isinstance(error, (engine.Denied, PermissionMissing)):
        return messages.NOT_ALLOWED
    return 'ok' if isinstance(error, (engine.Closing, engine.Special)) else messages.SERVER_ERROR


def note_life(name):
    """Note in its row that the client of the connection ``name`` is alive; return whether there is one."""
    from ..models import Socket

    rows = Socket.objects.on_primary().filter(channel_name=name)
    return bool(rows.note_life(conf.LAST_PING_RESOLUTION)) or rows.exists()


def _note_life(connection, memory):
    # Where no order is kept, its connect may still be under way.
    if not note_life(connection.name) and connection.keeps_order:
        memory.is_in_doubt = True
    # What is kept of the row does not say so.
    identity_cache.cache.forget(memory)


def note_ping(name):
    """Note a ``PING`` of the connection ``name``; ``RowMissing`` if it has no row."""
    from ..models import Socket

    active = Socket.objects.on_primary().filter(channel_name=name).values_list('active', flat=True).first()
    if active is None:
        raise RowMissing()
    # Any frame is a sign of life and has been noted as one. This may be what cleanup_stale() has asked for.
    if not active:
        note_life(name)
