"""One frame's life: from text to function to reply."""
import contextlib
import copy
import functools
import logging
import re
import time
import traceback

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from . import conf, contracts, databases, messages
from .access import limits, security
from .connection import envelopes, middleware
from .contracts import refusals
from .declaration import options, overrides
from .engines.channels1 import transport
from .execution import coroutines
from .exceptions import ConnectionRevoked, FrameError, MailboxFull, PermissionMissing, RowMissing, TooManyConnections
from .routes import Function, Route, RouteTable, check_declaration, permission_names
from .connection.visitors import visitors

logger = logging.getLogger('sockets')

_NOT_LOADED = object()

# What a function may return to answer with a binary frame.
_DATA = bytes, bytearray, memoryview

# What a path may not have in it: a regex that ends with $ matches before a newline, and terminals obey the others.
_CONTROLS = re.compile('[\0-\x1f\x7f-\x9f]')


class RoutedSocketHandler(transport.Consumer):
    """A websocket whose frames are dispatched on their type. An instance serves one frame of one connection.

    ``routes`` is the list of all routes: pairs of a pattern (``str`` or compiled regex) and a function or the name of a
    method, or instances of ``Route``. If several match, the last one is used. ``login_required`` closes connections
    without a user with 4401; ``permission``, a name like ``'poker.bet'`` or several, closes those of a user who does not
    have it with 4403. ``middleware`` runs around all functions, inside that of ``SOCKETS['MIDDLEWARE']``.
    ``sends`` declares what it sends: a dict of types, each with a form as that of a ``Route``, or ``None`` for any
    fields.
    """

    routes = (
        (messages.HELLO, 'on_hello'),
        (messages.PING, 'on_ping'),
    )
    login_required = False
    permission = ()
    middleware = ()
    sends = {}

    # What SocketRouter adds: a view's own functions, beside the methods that a handler class may override, and functions
    # of a handler that raise if the view would not let its client in.
    connect_functions = ()
    disconnect_functions = ()
    _guards = ()

    # What is not loaded with the row: it is long, and few functions look at it.
    _deferred = 'handshake',

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        options.check_handler(cls, RoutedSocketHandler)
        cls.resolve_routes()

    @classmethod
    def resolve_routes(cls):
        """Turn ``routes`` into a table; ``ImproperlyConfigured`` names the class and the route that is wrong."""
        cls._routes = [cls._resolve(entry) for entry in cls.routes]
        cls.route_table = RouteTable(cls._routes, cls._binary_route())
        overrides.check(cls, RoutedSocketHandler)
        for entry in cls.middleware:
            if not isinstance(entry, str):
                middleware.refuse(entry, entry)
        cls._default_function = cls._method('default_route', 'content')
        try:
            check_declaration('{}.sends'.format(cls.__name__), cls.sends)
        except TypeError as error:
            raise ImproperlyConfigured(str(error)) from error

    @classmethod
    def _resolve(cls, entry):
        if not isinstance(entry, Route) and not (isinstance(entry, (tuple, list)) and len(entry) == 2):
            raise ImproperlyConfigured("{}.routes has {!r}, which is no pair like ('TYPE', 'method_name').".format(
                cls.__name__, entry))
        try:
            route = copy.copy(entry) if isinstance(entry, Route) else Route(*entry)
            name = route.function
            if isinstance(name, str):
                route.function = getattr(cls, name, None)
                if route.function is None:
                    raise ImproperlyConfigured('{0}.routes sends {1!r} to {2!r}, but {0} has no method {2}().'.format(
                        cls.__name__, route.pattern, name))
            if not isinstance(route.function, Function):
                route.function = Function(route.function, route.argument)
        except TypeError as error:
            raise ImproperlyConfigured('{}.routes, {!r}: {}'.format(cls.__name__, entry, error)) from error
        return route

    @classmethod
    def _binary_route(cls):
        """Return the route of binary frames: the last of ``routes``, or ``on_bytes`` if it was defined below that."""
        entry = route = None
        for entry_, route_ in zip(cls.routes, cls._routes):
            if route_.pattern is bytes:
                entry, route = entry_, route_
        if cls.on_bytes is None or route is not None and route.function.function is cls.on_bytes:
            return route
        if route is not None:
            origin = next((base for base in reversed(cls.__mro__)
                           if any(entry is other for other in vars(base).get('routes', ()))), cls)
            if 'on_bytes' in vars(origin):
                raise ImproperlyConfigured('{0} has on_bytes() and {1!r}: remove one of them, or write '
                                           "Route(bytes, 'on_bytes').".format(origin.__name__, route))
            if not any('on_bytes' in vars(base) for base in cls.__mro__[:cls.__mro__.index(origin)]):
                return route
        return Route(bytes, cls._method('on_bytes', 'data'))

    @classmethod
    def _method(cls, name, argument):
        try:
            return Function(getattr(cls, name), argument)
        except TypeError as error:
            raise ImproperlyConfigured('{}.{}: {}'.format(cls.__name__, name, error)) from error

    @classmethod
    def own_routes(cls):
        """Return the routes that this class adds to those of its bases."""
        inherited = {id(entry) for base in cls.__mro__[1:] for entry in vars(base).get('routes', ())}
        return [route for entry, route in zip(cls.routes, cls._routes) if id(entry) not in inherited]

    @classmethod
    def functions(cls):
        """Return the ``Function`` of every route and hook."""
        binary = cls.route_table.binary
        return [*(route.function for route in cls.route_table), *([] if binary is None else [binary.function]),
                cls._default_function, *cls.connect_functions, *cls.disconnect_functions]

    @classmethod
    def check_sent(cls, content):
        """Raise ``TypeError`` if ``sends`` is there and does not declare ``content``. For ``DEBUG`` and for tests."""
        if cls.sends:
            contracts.check_sent(cls, content)

    # What a function sees of its connection.

    @property
    def socket(self):
        """The row of this connection; ``None`` before it is accepted and once it is gone."""
        self._load()
        return self._row

    @property
    def user(self):
        """The connection's user, as ``request.user``: an ``AnonymousUser`` when nobody is logged in."""
        self._load()
        return self._user

    @property
    def session(self):
        """The connection's session, as ``request.session``: saved after the function if it was modified."""
        self._load()
        return self._session

    @property
    def request(self):
        """The opening HTTP request: ``path``, ``GET``, ``COOKIES``, ``META``, ``user``, ``session``."""
        if self._request is None:
            row = self.socket
            if row is None:
                raise RowMissing()
            with databases.on_primary():
                # It may not have been loaded with the row, and need not be where this process holds the connection.
                self._request = self.handshake(lambda: row.handshake)
            self._request.session, self._request.user = self.session, self.user
        return self._request

    def send_json(self, content):
        """Send the ``dict`` ``content`` to this connection now; ``TypeError`` for what JSON cannot be made of."""
        self.deliver(self._message(content))

    def send_action(self, type, **fields):
        """Send ``{'type': type, **fields}`` to this connection now."""
        self.send_json({messages.TYPE: type, **fields})

    @property
    def rooms(self):
        """The names of the rooms that this connection is in; in a disconnect function, was in."""
        return [] if self.socket is None else self.socket.rooms

    def join(self, room):
        """Enter the room ``room``, a ``str``, for ``Socket.objects.in_room(room)`` to find this connection."""
        if self.socket is None:
            raise RuntimeError('Cannot join {!r:.40} before the connection is accepted.'.format(room))
        self.socket.join(room)

    def leave(self, room):
        """Leave the room ``room``. That happens by itself when the connection ends."""
        if self.socket is not None:
            self.socket.leave(room)

    # What a subclass may override.

    def connect(self, message, **kwargs):
        """Accept the connection."""
        self.accept()

    def decode(self, text, data):
        """Return the content of a frame, which is ``text`` or the ``bytes`` ``data``; the other one is ``None``.

        ``ValueError`` or ``FrameError`` for a frame that cannot be understood.
        """
        return messages.decode(text)

    def encode(self, content):
        """Return the frame, ``str`` or ``bytes``, of ``content``; ``TypeError`` for what cannot be one."""
        return messages.encode(content)

    def receive(self, content, **kwargs):
        """Dispatch ``content`` to its route and return what the function returned."""
        route = self.route = self.route_table.match(content.get(messages.TYPE))
        if route is None:
            return self._default_function(self, content, kwargs)
        if route.has_contract:
            content = contracts.check(route, self, content)
        return route.function(self, content, kwargs)

    # A method of (self, data), and of URL keyword arguments, takes binary frames, as a route for ``bytes`` does; what it
    # returns, ``bytes`` or a ``dict``, is the reply.
    on_bytes = None

    def default_route(self, content):
        """Answer a content whose type no route matches."""
        raise FrameError(messages.UNKNOWN_TYPE, 'No route for the type {:.100}.'.format(
            repr(content[messages.TYPE]) if messages.TYPE in content else '(there is none)'))

    def disconnect(self, message, **kwargs):
        """Called once for a connection that had been accepted; its row is deleted, ``socket`` still has its values."""

    def on_hello(self, content):
        """Tell a client who it is."""
        row = self.socket
        return {
            messages.TYPE: messages.GOT_HELLO,
            'user_id': row.user_id,
            'socket_id': row.pk,
            'path': row.path,
            'last_ping': row.last_ping,
            'user_ip': row.user_ip,
            'TIMESTAMP': int(time.time() * 1000),
        }

    def on_ping(self, content):
        """Note that the client is alive."""
        from .models import Socket
        active = Socket.objects.on_primary().filter(channel_name=self.channel_name).values_list(
            'active', flat=True).first()
        if active is None:
            raise RowMissing()
        # Any frame is a sign of life and has been noted as one. This may be what cleanup_stale() has asked for.
        if not active:
            self._note_life()

    # A frame's life, in the order in which things happen. Nothing may escape to the worker: it would exit.

    _row = _NOT_LOADED
    _user = _session = _request = None
    # What a middleware sees: 'connect', 'receive' or 'disconnect'.
    event = None
    # The content as it arrived; of a binary frame, its data.
    content = None
    # What stood before the data of a binary frame: its ``ref``, and whether it was ``resent``.
    envelope = {}
    _in_frame = False
    # What matched the frame, once something has.
    route = None
    # What became of the frame, as message_handled tells it.
    _outcome = 'ok'

    def raw_connect(self, message, **kwargs):
        try:
            self._identify()
            self.join_groups(**kwargs)
            self._pass_on('connect', None)
            if not (self.accepted or self.closed):
                # A middleware that does not pass it on.
                raise transport.DenyConnection()
            self._save_session()
        except transport.ConsumeLater:
            raise
        except BaseException as error:
            self._attempt(self._refuse, error)
        from . import presence
        presence.in_passing()

    def raw_receive(self, message, **kwargs):
        ref, began = None, time.perf_counter()
        visitor = visitors.get(self.channel_name)
        if visitor.is_due(time.monotonic(), conf.LAST_PING_RESOLUTION):
            self._attempt(self._note_life)
        try:
            content = self.content = self._read(visitor, message.get('text'), message.get('bytes'))
            ref = self._ref()
            self._admit(visitor, content)
            reply = self._answer(content, ref)
        except transport.ConsumeLater:
            raise
        except BaseException as error:
            reply, error = None, refusals.frame_error(error)
            self._outcome = self._outcome_of(error)
            self._attempt(self._fail, error, self._ref() if ref is None else ref)
        finally:
            self._in_frame = False
        code = limits.code_after(visitor, self._outcome)
        if reply is not None and not self.closed:
            self._attempt(self.deliver, reply, code is None)
        if code is not None:
            logger.info('Closing %s at %r with %d: %d more of its frames were bad than good, the last one %s',
                        self.channel_name, self.path, code, visitor.bad_frames, self._outcome)
            self._attempt(self._close_if_open, code)
        self._announce_handled(time.perf_counter() - began)

    def raw_disconnect(self, message, **kwargs):
        from django.db import Error
        self._attempt(functools.partial(self.leave_groups, **kwargs))
        try:
            self._forget(message, kwargs)
        except Error as error:
            from . import presence
            if not getattr(message, 'is_told_again', False):
                message.is_told_again = True
                logger.error('The database could not be told that %s has ended, and will be told again: %s',
                             self.channel_name, error)
            presence.try_again(functools.partial(type(self), message, **kwargs))
        except BaseException:
            logger.exception('%s at %r failed', type(self).__name__, self.path)

    def _read(self, visitor, text, data):
        """Return the content of a frame. One that cannot be understood takes a token of the rate like any other."""
        try:
            return self._decode(text, data)
        except BaseException:
            limits.check_rate(visitor, self, None)
            raise

    def _decode(self, text, data):
        max_size, is_taken = conf.MAX_MESSAGE_SIZE, False
        if data is not None:
            is_taken = self.route_table.binary is not None
            max_size = is_taken and conf.MAX_BINARY_SIZE or max_size
            # One that nobody takes is refused with its ref. To a decoder of the project's own, it is no envelope.
            if is_taken or type(self).decode is RoutedSocketHandler.decode:
                self.envelope, data = envelopes.unwrap(data)
        messages.check_size(data or '' if text is None else text, max_size)
        if is_taken:
            return data
        try:
            content = self.decode(text, data)
        except ValueError as error:
            raise FrameError(messages.INVALID_JSON, 'This frame cannot be decoded: {}.'.format(error))
        if not isinstance(content, dict):
            raise FrameError(messages.INVALID_MESSAGE, 'A frame is an object with a type.')
        return content

    def _admit(self, visitor, content):
        """Raise unless ``content`` is within its rate, and of somebody who may send anything here."""
        limits.check_rate(visitor, self, content)
        self._in_frame = True
        self._check_user()

    def _check_user(self):
        if self.login_required and not self.user.is_authenticated:
            raise ConnectionRevoked('Log in to use this socket.')
        if self.permission:
            self._check_permissions(permission_names(self.permission))
        for guard in self._guards:
            guard(self)

    def _check_permissions(self, permissions):
        if not contracts.has_permissions(self, permissions):
            raise PermissionMissing()

    def _answer(self, content, ref):
        """Return the message that answers ``content``, or ``None`` if it needs none."""
        result = self._pass_on('receive', content)
        self._save_session()
        if self.closed and isinstance(result, (dict, *_DATA)):
            self._log_dropped()
            return None
        return self._reply(result, ref)

    def _log_dropped(self):
        logger.warning('%s at %r dropped its answer to a frame of %r: it had closed the connection before it returned. '
                       'Send the answer with send_json() and close then.', type(self).__name__, self.path,
                       self.content.get(messages.TYPE) if isinstance(self.content, dict) else 'bytes')

    def _pass_on(self, event, content):
        """Pass a connect, a content or a disconnect through the middleware to the functions; return their result."""
        self.event = event
        return self.build_middleware()(self, content)

    @classmethod
    def build_middleware(cls):
        """Return what connects, contents and disconnects pass through; ``ImproperlyConfigured`` names what is none."""
        entries = (*conf.MIDDLEWARE, *cls.middleware)
        built = cls.__dict__.get('_chain')
        if built is None or built[0] != entries:
            # Once for each class, and for each SOCKETS['MIDDLEWARE'] that a test may set.
            built = cls._chain = entries, middleware.chain(entries, cls._innermost)
        return built[1]

    def _innermost(self, content):
        """Call the functions of what came through the middleware."""
        if self.event == 'receive':
            if isinstance(content, bytes):
                return self._take(content)
            return coroutines.settle(self.receive(content, **self.kwargs))
        if self.event == 'connect':
            coroutines.settle(self.connect(self.message, **self.kwargs))
            if self.closed:
                return
            self.accept()
            for function in self.connect_functions:
                if self.closed:
                    break
                function(self, self.message, self.kwargs)
        else:
            self._attempt(lambda: coroutines.settle(self.disconnect(self.message, **self.kwargs)))
            # The last one first. What one raises keeps no other from running.
            with contextlib.ExitStack() as stack:
                for function in self.disconnect_functions:
                    stack.callback(function, self, self.message, self.kwargs)

    def _take(self, data):
        """Hand the data of a binary frame to its function and return what that returned."""
        route = self.route = self.route_table.binary
        if route.has_contract:
            data = contracts.check(route, self, data)
        return route.function(self, data, self.kwargs)

    def _identify(self):
        """Identify the client; raise if it may not connect."""
        from .access import auth
        request = self._request = self.handshake()
        self._check_path()
        origin, host = request.META.get('HTTP_ORIGIN'), request.META.get('HTTP_HOST')
        if not security.origin_allowed(origin, host, request.is_secure()):
            logger.warning('Refused a websocket to %.100r at %.100r from the foreign origin %.100r. %s',
                           self.path, host, origin, security.remedy(origin))
            raise transport.DenyConnection()
        self._row = None
        with databases.on_primary():
            self._session = auth.session_from_cookie(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
            self._user = auth.user_of(self._session)
        request.session, request.user = self._session, self._user
        self._user_ip = security.client_ip(self.peer(request), self.header(security.address_header()))
        if self._wants_login() and not self._user.is_authenticated:
            raise ConnectionRevoked('Log in to use this socket.')
        self._check_permissions(self._wanted_permissions())
        for guard in self._wanted_guards():
            guard(self)
        limits.check_connections(self._user, self._user_ip)

    @classmethod
    def _wants_login(cls):
        return cls.login_required

    @classmethod
    def _wanted_permissions(cls):
        return permission_names(cls.permission)

    @classmethod
    def _wanted_guards(cls):
        return cls._guards

    def _check_path(self):
        from .models import Socket
        if len(self.path) > Socket._meta.get_field('path').max_length:
            logger.warning('Refused a websocket to %.100r: a row cannot hold this path.', self.path)
        elif _CONTROLS.search(self.path):
            logger.warning('Refused a websocket to %.100r: there are control characters in this path.', self.path)
        else:
            return
        raise transport.DenyConnection()

    def opening(self):
        # The row comes before the accept: the client's first frame may reach another worker right after it.
        from django.db import DataError, IntegrityError

        from . import signals
        from .access import auth
        from .models import Socket
        row = Socket(
            channel_name=self.channel_name,
            path=self.path,
            user_ip=self._user_ip,
            session_id=auth.row_session_key(self._session),
            user=self._user if self._user.is_authenticated else None,
            # Whoever reads the database, or a copy of it, is not to be anybody's session.
            handshake=self.handshake_text(secret_cookie=settings.SESSION_COOKIE_NAME),
        )
        try:
            row.save(force_insert=True)
        except DataError as error:
            logger.warning('Refused a websocket to %.100r: %s', self.path, error)
            raise transport.DenyConnection() from error
        except IntegrityError as error:
            # The session or the user went between our look and our insert, or the connect came twice.
            logger.warning('Refused a websocket to %.100r: %s', self.path, error)
            raise transport.DenyConnection() from error
        self._row = row
        visitors.get(self.channel_name).is_due(time.monotonic(), conf.LAST_PING_RESOLUTION)
        signals.announce(signals.socket_connected, sender=type(self), socket=row)

    def _refuse(self, error):
        """End a connection whose connect raised ``error``."""
        error = refusals.frame_error(error)
        if isinstance(error, MailboxFull):
            logger.error('Could not answer the connect to %.100r: %s', self.path, error)
        elif isinstance(error, ConnectionRevoked):
            if not self.accepted:
                self.accept_without_opening()
            self._turn_away(error)
        elif isinstance(error, (TooManyConnections, PermissionMissing)):
            # A browser is not told of what it gets before the accept.
            if not self.accepted:
                self.accept_without_opening()
            is_limit = isinstance(error, TooManyConnections)
            self._attempt(self.send_json, messages.error(
                messages.RATE_LIMITED if is_limit else messages.NOT_ALLOWED, error.details))
            self._close_if_open(messages.CLOSE_RATE_LIMITED if is_limit else messages.CLOSE_NOT_ALLOWED)
        elif isinstance(error, transport.DenyConnection):
            # The view changed its mind before anyone heard of this connection: there is nothing to disconnect.
            if self._row not in (None, _NOT_LOADED):
                self._remove_row(messages.CLOSE_NOT_ALLOWED)
                self._row.forget()
            self._close_if_open(messages.CLOSE_NOT_ALLOWED)
        elif isinstance(error, transport.ChannelSocketException):
            self._run_channels_exception(error)
        else:
            content, code = None, messages.CLOSE_NOT_ALLOWED
            if isinstance(error, FrameError):
                try:
                    self.encode(self._content_of(error))
                    content = self._content_of(error)
                    logger.info('Refused %s at %r: %s %s', self.channel_name, self.path, error.code, error.details)
                except BaseException as failure:
                    error = failure
            if content is None:
                content, code = self._server_error('connect', error), messages.CLOSE_SERVER_ERROR
            if self.accepted and not self.closed:
                self._attempt(self.send_json, content)
            self._close_if_open(code)

    def _content_of(self, error):
        content = messages.error(error.code, error.details)
        if error.errors is not None:
            content['errors'] = error.errors
        if error.retry_after is not None:
            content['retry_after'] = error.retry_after
        return content

    def _fail(self, error, ref):
        """Answer a frame whose handling raised ``error``."""
        if isinstance(error, ConnectionRevoked):
            return self._turn_away(error, ref)
        if isinstance(error, transport.ChannelSocketException):
            if ref is not None and not self.closed:
                self.deliver(self._reply(None, ref))
            return self._run_channels_exception(error)
        if isinstance(error, FrameError):
            content = self._content_of(error)
            if self.closed:
                self._log_dropped()
        elif isinstance(error, (transport.DenyConnection, PermissionMissing)):
            content = messages.error(messages.NOT_ALLOWED, getattr(error, 'details', 'You may not do this.'))
        else:
            content = self._server_error('a frame', error)
        try:
            reply = self._reply(content, ref)
        except BaseException as failure:
            # What a FrameError says may be no JSON.
            self._outcome = messages.SERVER_ERROR
            content = self._server_error('the answer to a frame', failure)
            try:
                reply = self._reply(content, ref)
            except BaseException:
                # Nor may a ref be that a project's own decode() has let in.
                reply = self._reply(content, None)
        if not self.closed:
            self.deliver(reply)
        if isinstance(error, (transport.DenyConnection, PermissionMissing)):
            self._close_if_open(messages.CLOSE_NOT_ALLOWED)

    def last_words(self):
        # A client that got no answer would send it again, to hang the next thread.
        return self._reply(messages.error(messages.SERVER_ERROR, 'This takes too long.'), self._ref())

    def _outcome_of(self, error):
        """Return what ``message_handled`` calls a frame that ended with ``error``."""
        if isinstance(error, ConnectionRevoked):
            return 'revoked'
        if isinstance(error, FrameError):
            return error.code
        if isinstance(error, (transport.DenyConnection, PermissionMissing)):
            return messages.NOT_ALLOWED
        return 'ok' if isinstance(error, transport.ChannelSocketException) else messages.SERVER_ERROR

    def _note_life(self):
        from .models import Socket
        Socket.objects.on_primary().filter(channel_name=self.channel_name).note_life(conf.LAST_PING_RESOLUTION)

    def _announce_handled(self, duration):
        from . import signals
        if signals.message_handled.receivers:
            signals.announce(signals.message_handled, sender=type(self), socket=self, duration=duration,
                             route=None if self.route is None else self.route.name, outcome=self._outcome)

    def _turn_away(self, error, ref=None):
        logger.info('Turned away %s at %r: %s', self.channel_name, self.path, error.details)
        if not self.closed:
            # An encoder of the project's own that fails here keeps nobody connected.
            self._attempt(lambda: self.deliver(self._reply(messages.reconnect(error.details), ref)))
        self._close_if_open(
            messages.CLOSE_RESTART if isinstance(error, RowMissing) else messages.CLOSE_LOGIN_REQUIRED)

    def _run_channels_exception(self, error):
        if isinstance(error, transport.WebsocketCloseException):
            # Its own run() takes daphne's reply channels for something else and raises, which ends the worker.
            try:
                code = transport.close_code(error._code or messages.CLOSE_NORMAL)
            except ValueError:
                logger.exception('%s at %r failed to close %s', type(self).__name__, self.path, self.channel_name)
                code = messages.CLOSE_SERVER_ERROR
            self._close_if_open(code)
        else:
            error.run(self.message)

    def _forget(self, message, kwargs):
        """Delete the row; whoever really deleted it runs the disconnect functions."""
        from .models import Socket
        visitors.forget(self.channel_name)
        # Whoever ends a connection for daphne has done it already.
        removed = getattr(message, 'row', None)
        self._row = row = removed or Socket.objects.select_related('user', 'session').on_primary().filter(
            channel_name=self.channel_name).first()
        self._adopt(row)
        if row is None:
            return self._look_again(message, kwargs)
        if not (removed or row.remove()):
            return
        if 'handshake' not in row.get_deferred_fields():
            # No disconnect says how its connect came.
            self.recall_root_path(row.handshake)
        self._announce_end(message.get('code'), getattr(message, 'reason', None))
        self._attempt(self._pass_on, 'disconnect', None)
        row.forget()

    def _look_again(self, message, kwargs):
        """Come back to an end without a row: where no order is kept, it may have overtaken its connect."""
        looks = getattr(message, 'looks', 0)
        if looks < 3 and not self.is_in_order:
            from . import presence
            message.looks = looks + 1
            presence.try_again(functools.partial(type(self), message, **kwargs))

    def _remove_row(self, code):
        if self._row.remove():
            self._announce_end(code, None)

    def _announce_end(self, code, reason):
        from . import signals
        row = self._row
        if reason is not None or code not in messages.ORDINARY_ENDS:
            age, silence = ((timezone.now() - then).total_seconds() for then in (row.created, row.last_ping))
            logger.info('The connection %s at %r ended with %s%s (user %s, open for %.0f s, last heard %.0f s ago)',
                        row.channel_name, row.path, code, ': ' + reason if reason else '', row.user_id, age, silence,
                        extra={'user_id': row.user_id, 'path': row.path, 'code': code, 'reason': reason, 'age': age,
                               'silence': silence, 'server': row.server, 'socket_id': row.pk})
        signals.announce(signals.socket_disconnected, sender=type(self), socket=row, code=code, reason=reason)

    def _load(self):
        """Load the row with its user and session, in one query, once; raise if they no longer hold."""
        if self._row is _NOT_LOADED:
            from .models import Socket
            # Whoever ended a connection for daphne has it, and has removed it.
            row = getattr(self.message, 'row', None) or Socket.objects.select_related('user', 'session').on_primary().defer(
                *self._deferred).filter(channel_name=self.channel_name).first()
            self._adopt(row)
            self._row = row
        if self._in_frame:
            from .access import auth
            if self._row is None:
                raise RowMissing()
            auth.check_still_valid(self._row, self._session)

    def _adopt(self, row):
        from .access import auth
        session = None if row is None else row.session
        self._user = row.user if row is not None and row.user_id is not None else auth.anonymous()
        self._session = auth.session_store() if session is None else auth.session_store(
            session.session_key, session.get_decoded())

    def _save_session(self):
        """Save the session if the function changed it, as Django's session middleware would."""
        if self._session is None or not self._session.modified or not self._session.session_key:
            return
        from django.contrib.sessions.backends.base import UpdateError
        try:
            self._session.save()
        except UpdateError:
            raise ConnectionRevoked()

    def _ref(self):
        """Return the ``ref`` of the frame, ``None`` if it has none or cannot be understood."""
        return (self.content if isinstance(self.content, dict) else self.envelope).get(messages.REF)

    def _reply(self, result, ref):
        """Return the message that carries ``result`` to the client, or ``None`` if it gets none."""
        if isinstance(result, _DATA):
            return {'bytes': envelopes.wrap(bytes(result), ref)}
        content = result if isinstance(result, dict) else None
        if ref is not None:
            content = {messages.TYPE: messages.ACK} if content is None else content
            content = {**content, messages.REF: ref}
        return None if content is None else self._message(content)

    def _message(self, content):
        """Return the message that has daphne send ``content``. With ``DEBUG``, it has to be what ``sends`` declares."""
        frame = self.encode(content)
        if settings.DEBUG:
            self.check_sent(content)
        return {'bytes': frame} if isinstance(frame, bytes) else {'text': frame}

    def _server_error(self, what, error):
        logger.error('%s at %r raised in %s', type(self).__name__, self.path, what, exc_info=error)
        content = messages.error(messages.SERVER_ERROR, 'Something went wrong on the server.')
        if settings.DEBUG:
            try:
                content['details'] = '{}: {}'.format(type(error).__name__, error)
            except BaseException:
                content['details'] = type(error).__name__
            content['traceback'] = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
        return content

    def _close_if_open(self, code):
        if not self.closed:
            self.close(code)

    def _attempt(self, function, *args):
        """Call ``function``; what it raises is logged, because the worker could end with it."""
        try:
            function(*args)
        except transport.ConsumeLater:
            raise
        except BaseException:
            logger.exception('%s at %r failed', type(self).__name__, self.path)


RoutedSocketHandler.resolve_routes()
