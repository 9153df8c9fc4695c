"""Channels' worker, with a shorter way for the frames of our connections: nearly all that it gets."""

import functools
import logging
import time

from channels.exceptions import ChannelSocketException, ConsumeLater, DenyConnection
from channels.message import Message, pending_message_store
from channels.routing import Include, Route, RouteClass
from channels.signals import consumer_finished, consumer_started
from channels.utils import name_that_thing
from channels.worker import Worker
from django.db import close_old_connections
from django.dispatch.dispatcher import _make_id

from ...connection import disconnect, frame, timing
from ...execution import steps, thread_state
from .channel_layer import adapted
from .connection import Connection
from .consumer import Consumer
from .line import AT_ONCE, CONNECT
from .routing import is_consumer_of_ours

logger = logging.getLogger('django.channels')

RECEIVE = 'websocket.receive'
DISCONNECT = 'websocket.disconnect'

# How many paths a worker remembers the consumers of, and how long one may be.
MOST_PATHS, LONGEST_PATH = 1000, 200

# What a class does not override if its frames take the shorter way, and what it does not ask for.
_METHODS = '__init__', '__new__', 'dispatch', 'get_handler', 'method_mapping'
_METHOD = {RECEIVE: 'raw_receive', CONNECT: 'raw_connect', DISCONNECT: 'raw_disconnect'}
_REQUESTS = 'channel_session', 'channel_session_user', 'http_user', 'http_user_and_session', 'strict_ordering'

# The receivers of Channels' signals around each message that are there anyway. Django's way to call them takes longer
# than they do.
_KNOWN = {
    _make_id(function): function
    for function in (
        pending_message_store.prepare,
        pending_message_store.send_and_flush,
        close_old_connections,
        thread_state.begin,
    )
}


class FrameWorker(Worker):
    """Handles messages as Channels' worker does. What it finds in the routing for a frame, it remembers by its path.

    An instance of a handler class is made without its message, which is made when it is asked for.
    """

    def run(self):
        """Handle messages until it is told to stop."""
        if self.signal_handlers:
            self.install_signal_handler()
        layer = self.channel_layer
        channels = self.apply_channel_filters(layer.router.channels)
        logger.info('Listening on channels %s', ', '.join(sorted(channels)))
        ways = {RECEIVE: (Routes(layer, RECEIVE), _receive), DISCONNECT: (Routes(layer, DISCONNECT), _disconnect)}
        receive = layer.receive_many
        self._around = Around(consumer_started, environ={}), Around(consumer_finished)
        # Frames that have come meanwhile would wait for all of a line.
        opens = set(self.only_channels or ()) == {CONNECT}
        line, find = adapted(layer).line, functools.partial(self._find, Routes(layer, CONNECT))
        while not self.termed:
            if opens and line:
                # Somebody else's, whose functions take long, or whose thread hangs.
                line.work_off(self, find)
            self.in_job = False
            channel, content = receive(channels, block=True)
            self.in_job = True
            if channel is None:
                # Not to be busy with nothing, nor to hinder who opens a line.
                time.sleep(AT_ONCE if opens and line else 0.01)
                continue
            found, is_quick = None, self.callback is None and not logger.isEnabledFor(logging.DEBUG)
            if is_quick and channel in ways:
                routes, function = ways[channel]
                found = routes.find(content)
            if found is not None:
                handler = self._handler(*found, channel, content)
                self.serve(handler, channel, content, function, handler, content)
            elif opens and channel == CONNECT and is_quick:
                line.open(self, content, find)
            else:
                self.handle(channel, content)

    def _find(self, routes, content):
        found = routes.find(content)
        return None if found is None else self._handler(*found, routes.channel, content)

    def _handler(self, cls, kwargs, channel, content):
        handler = cls.__new__(cls)
        handler._connection = Connection(self.channel_layer, content, channel)
        handler.path, handler.kwargs = content['path'], kwargs.copy()
        return handler

    def serve(self, handler, channel, content, function, *args):
        """Return what ``function(*args)`` returns, which handles a message of ours, or a part of that.

        It raises nothing but what the engine wants to see.
        """
        started, finished = self._around
        try:
            started.send()
            return timing.timed(
                handler, channel, thread_state.serve, function, content.get('root_path'), type(handler), *args
            )
        except ConsumeLater:
            self._put_back(channel, content)
        except BaseException:
            logger.exception('Error processing message with consumer %s:', name_that_thing(type(handler)))
        finally:
            finished.send()

    def handle(self, channel, content):
        """Handle any message, as Channels does."""
        logger.debug('Got message on %s (reply %s)', channel, content.get('reply_channel', 'none'))
        message = Message(content=content, channel_name=channel, channel_layer=self.channel_layer)
        if content.get('__retries__', 0) == self.message_retries:
            message.__doomed__ = True
        match = self.channel_layer.router.match(message)
        if match is None:
            logger.error('Could not find match for message on %s! Check your routing.', channel)
            return
        consumer, kwargs = match
        if self.callback:
            self.callback(channel, message)
        try:
            logger.debug('Dispatching message on %s to %s', channel, name_that_thing(consumer))
            consumer_started.send(sender=Worker, environ={})
            consumer(message, **kwargs)
        except DenyConnection:
            if message.channel.name != 'websocket.connect':
                raise ValueError('You cannot DenyConnection from a non-websocket.connect handler.')
            message.reply_channel.send({'close': True})
        except ChannelSocketException as error:
            error.run(message)
        except ConsumeLater:
            self._put_back(channel, content)
        except BaseException:
            logger.exception('Error processing message with consumer %s:', name_that_thing(consumer))
        finally:
            consumer_finished.send(sender=Worker)

    def _put_back(self, channel, content):
        """Have a message handled again later, unless that has been tried too often."""
        content['__retries__'] = content.get('__retries__', 0) + 1
        if content['__retries__'] > self.message_retries:
            logger.warning('Exceeded number of retries for message on channel %s: %s', channel, repr(content)[:100])
            return
        for _ in range(10):
            try:
                self.channel_layer.send(channel, content)
            except self.channel_layer.ChannelFull:
                time.sleep(0.05)
            else:
                break


def _receive(handler, content):
    steps.run(frame.receive(handler, content.get('text'), content.get('bytes')))


def _disconnect(handler, content):
    disconnect.disconnect(handler, content.get('code'), is_discarded=True)


class Around:
    """What is called before each message, or after it: the receivers of one of Channels' signals."""

    def __init__(self, signal, **kwargs):
        self.signal = signal
        self.kwargs = dict(kwargs, sender=Worker)
        # As the signal had them when we last looked. None to call: there is one that we do not know.
        self.receivers = self.functions = None

    def send(self):
        """Send the signal."""
        # They are the same objects, so that this looks at no more than that.
        if self.receivers != self.signal.receivers:
            self.receivers = list(self.signal.receivers)
            known = [_KNOWN.get(entry[0][0]) for entry in self.receivers]
            self.functions = None if None in known else known
        if self.functions is None:
            self.signal.send(**self.kwargs)
        else:
            for function in self.functions:
                function()


class Routes:
    """Where the messages of ``channel`` of our connections go, by their paths."""

    def __init__(self, layer, channel):
        self.layer, self.channel = layer, channel
        # What the router had for channels. It makes them anew with each change.
        self.channels = None

    def find(self, content):
        """Return the handler class and the URL arguments of a frame; ``None`` if Channels has to handle it."""
        router = self.layer.router
        if router.channels is not self.channels:
            self.channels, self.paths = router.channels, {}
            self.is_by_path = type(router.root) is Include and all(
                _is_by_path(entry, self.channel) for entry in router.root.routing
            )
        path = content.get('path')
        try:
            found = self.paths[path]
        except KeyError:
            found = self._look(content)
            if len(path or '') <= LONGEST_PATH:
                if len(self.paths) >= MOST_PATHS:
                    self.paths.clear()
                self.paths[path] = found
        return None if '__retries__' in content else found

    def _look(self, content):
        if not self.is_by_path:
            return None
        found = self.layer.router.match(Message(content, self.channel, self.layer))
        return (
            found if found is not None and is_consumer_of_ours(found[0]) and _is_plain(found[0], self.channel) else None
        )


def _is_by_path(entry, channel):
    """Whether the path of a message of ``channel`` says whether it matches ``entry`` of a routing, and what is in there."""
    if type(entry) is Include:
        return entry.prefixes.keys() <= {'path'} and all(_is_by_path(child, channel) for child in entry.routing)
    return type(entry) in (Route, RouteClass) and (channel not in entry.channels or entry.filters.keys() <= {'path'})


def _is_plain(cls, channel):
    """Whether Channels would do nothing for a message of ``channel`` of ``cls`` that is not done here."""
    return all(getattr(cls, name) is getattr(Consumer, name) for name in (*_METHODS, _METHOD[channel])) and not any(
        getattr(cls, name) for name in _REQUESTS
    )
