"""What a project's sockets answer, read off their handlers: as text, as AsyncAPI and as TypeScript."""
import inspect
import json
import re

from django.utils.regex_helper import normalize

from .. import engine, messages
from ..handlers import RoutedSocketHandler
from ..multiplexing import PAYLOAD, STREAM, SocketDemultiplexer
from ..routes import permission_names
from ..contracts.schemas import schema_of, schema_of_sent


class Endpoint:
    """A path and the handler class that the routing leads to from there, or one of its streams."""

    def __init__(self, handler, pattern, is_stream=False):
        self.handler = handler
        self.pattern = pattern
        # The route of binary frames, if there is one: a binary frame names no stream.
        self.binary = None if is_stream else handler._route_table.binary
        # MyPage of MyPageSocketHandler.
        self.name = re.sub(r'(Socket)?Handler$', '', handler.__name__) or handler.__name__
        self.address, self.parameters = address(pattern)

    @property
    def routes(self):
        """The routes that can match: of those of one pattern, the last; HELLO and PING only if they were replaced."""
        found = {}
        for route in self.handler._route_table:
            found.pop(route.pattern, None)
            found[route.pattern] = route
        base = {route.pattern: route.function.function for route in RoutedSocketHandler._route_table}
        return [route for pattern, route in found.items() if route.function.function is not base.get(pattern)]

    @property
    def sends(self):
        """What the handler declares that it sends: a dict of types and their forms, ``None`` for any fields."""
        return self.handler.sends

    @property
    def streams(self):
        """The streams of a ``SocketDemultiplexer``: pairs of a name and its ``Endpoint``."""
        if not issubclass(self.handler, SocketDemultiplexer):
            return []
        return [(name, Endpoint(handler, self.pattern, is_stream=True)) for name, handler in self.handler.streams.items()]

    @property
    def is_open(self):
        """Whether contents of other types than those of the routes are taken, too."""
        return self.handler.default_route is not RoutedSocketHandler.default_route


def endpoints():
    """Return the ``Endpoint`` of every handler of ours in the routing, in its order."""
    return [Endpoint(found.handler, found.pattern) for found in engine.current().endpoints()]


def address(pattern):
    """Return a path for the regular expression ``pattern``, such as ``/room/{room}/``, and the names in it."""
    try:
        form, names = normalize(pattern)[0]
    except (IndexError, ValueError, NotImplementedError):
        return pattern, []
    path = form % {name: '{%s}' % name for name in names}
    return path if path.startswith('/') else '/' + path, names


def docstring(thing):
    """Return the docstring of a function or class, or ``''``."""
    return inspect.cleandoc(thing.__doc__ or '')


def summary(thing):
    """Return the first line of the docstring of a function or class, or ``''``."""
    return docstring(thing).partition('\n')[0]


def type_of(route):
    """Return the type of a route as people write it: regular expressions between slashes."""
    return route.pattern if isinstance(route.pattern, str) else '/{}/'.format(route.pattern.pattern)


def as_text(found):
    """Return the endpoints as text for people."""
    lines = []
    for endpoint in found:
        if lines:
            lines.append('')
        lines.append('{}  {}.{}{}'.format(endpoint.address, endpoint.handler.__module__, endpoint.handler.__qualname__,
                                          '  (login required)' if endpoint.handler.login_required else ''))
        if endpoint.handler.permission:
            lines[-1] += '  (permission {})'.format(', '.join(permission_names(endpoint.handler.permission)))
        if summary(endpoint.handler):
            lines.append('    ' + summary(endpoint.handler))
        width = max([len(type_of(route)) for route in endpoint.routes] or [0])
        for route in endpoint.routes:
            lines.append('  {}  {}'.format(type_of(route).ljust(width), _about(route)).rstrip())
            if route.form is not None:
                lines += _fields(schema_of(route.form))
        if endpoint.is_open:
            lines.append('  (any other type)  {}'.format(
                summary(endpoint.handler.default_route)).rstrip())
        if endpoint.binary is not None:
            lines.append('  (binary frames)  {}'.format(_about(endpoint.binary)).rstrip())
        for type, form in endpoint.sends.items():
            schema = schema_of_sent(form)
            lines.append('  sends {}  {}'.format(type, _first_line(schema)).rstrip())
            lines += _fields(schema)
        for name, stream in endpoint.streams:
            head, *rest = as_text([stream]).splitlines()
            lines.append('  stream {}  {}'.format(name, head.partition('  ')[2]))
            lines += ['  ' + line for line in rest]
    return '\n'.join(lines)


def _first_line(schema):
    return schema.get('description', '').partition('\n')[0]


def _fields(schema):
    return ['      {}{}: {}'.format(name, '' if name in schema.get('required', ()) else '?', typescript(field))
            for name, field in schema.get('properties', {}).items()]


def _about(route):
    """Return what a route is for, and in brackets what it asks for."""
    options = _options(route)
    return ' '.join(filter(None, [summary(route.function.function), '({})'.format(options) if options else '']))


def _options(route):
    return ', '.join(filter(None, [
        'login required' if route.login_required else '',
        'permission ' + ', '.join(route.permissions) if route.permissions else '',
        str(route.rate or ''),
    ]))


def as_asyncapi(found, title, version):
    """Return an AsyncAPI 3 document, as a ``dict``, of what clients may send and of what handlers send."""
    channels, operations = {}, {}
    for endpoint in found:
        name = _unused(endpoint.name, channels)
        # Of what clients send and of what handlers send, a channel has one dict.
        answers = {key: {'$ref': '#/components/messages/' + key} for key in _ANSWERS if key not in endpoint.sends}
        for type, form in endpoint.sends.items():
            answers[_unused(_key(type), answers)] = _of_type(type, form)
        sent = {'HELLO': _message(_envelope({'const': messages.HELLO}), 'Who am I?'),
                'PING': _message(_envelope({'const': messages.PING}), 'I am alive.')}
        for route in endpoint.routes:
            sent[_unused(_key(type_of(route)), {**sent, **answers})] = _of_route(route)
        if endpoint.binary is not None:
            sent[_unused('bytes', {**sent, **answers})] = {
                **_message({'type': 'string', 'format': 'binary'}, summary(endpoint.binary.function.function)),
                'contentType': 'application/octet-stream'}
        for stream, part in endpoint.streams:
            for route in part.routes:
                sent[_unused(_key(stream + '_' + type_of(route)), {**sent, **answers})] = _on(stream, _of_route(route))
            for type, form in part.sends.items():
                answers[_unused(_key(stream + '_' + type), {**sent, **answers})] = _on(stream, _of_type(type, form))
        channel = channels[name] = {'address': endpoint.address, 'messages': {**sent, **answers}}
        if endpoint.parameters:
            channel['parameters'] = {parameter: {} for parameter in endpoint.parameters}
        if docstring(endpoint.handler):
            channel['description'] = docstring(endpoint.handler)
        for action, keys in (('receive', sent), ('send', answers)):
            operations['{}.{}'.format(name, action)] = {
                'action': action, 'channel': {'$ref': '#/channels/' + name},
                'messages': [{'$ref': '#/channels/{}/messages/{}'.format(name, key)} for key in keys]}
    return {'asyncapi': '3.0.0', 'info': {'title': title, 'version': version}, 'defaultContentType': 'application/json',
            'channels': channels, 'operations': operations, 'components': {'messages': _ANSWERS}}


def _key(type):
    return re.sub(r'[\W_]+', '_', type).strip('_') or 'any'


def _of_route(route):
    type = ({'const': route.pattern} if isinstance(route.pattern, str) else
            {'type': 'string', 'pattern': '^(?:{})'.format(route.pattern.pattern)})
    schema = {} if route.form is None else schema_of(route.form)
    payload = _envelope(type, schema)
    return _message(payload, summary(route.function.function), _options(route))


def _of_type(type, form):
    schema = schema_of_sent(form)
    return _message(_envelope({'const': type}, schema), _first_line(schema))


def _on(stream, message):
    """Return ``message`` as it travels on a stream."""
    return {**message, 'payload': {'type': 'object', 'required': [STREAM, PAYLOAD], 'properties': {
        STREAM: {'const': stream}, PAYLOAD: message['payload']}}}


def _envelope(type, schema=None):
    schema = dict(schema or {})
    schema.update(type='object', properties={messages.TYPE: type, messages.REF: {}, **schema.get('properties', {})},
                  required=[messages.TYPE, *schema.get('required', ())])
    return schema


def _message(payload, summary='', description=''):
    message = {'payload': payload}
    if summary:
        message['summary'] = summary
    if description:
        message['description'] = description
    return message


_TEXT = {'type': 'string'}
# What any handler may send of itself.
_ANSWERS = {
    'GOT_HELLO': _message({'type': 'object', 'properties': {'type': {'const': messages.GOT_HELLO}},
                           'required': ['type', 'user_id', 'socket_id', 'path']}, 'The answer to HELLO.'),
    'ACK': _message({'type': 'object', 'properties': {'type': {'const': messages.ACK}, 'ref': {}},
                     'required': ['type', 'ref']}, 'The frame of this ref was handled, and has no other answer.'),
    'ERROR': _message({'type': 'object', 'required': ['type', 'code', 'details'], 'properties': {
        'type': {'const': messages.ERROR}, 'code': _TEXT, 'details': _TEXT, 'errors': {'type': 'object'},
        'retry_after': {'type': 'number'}, 'ref': {}}},
        'The frame was not handled.'),
    'RECONNECT': _message({'type': 'object', 'properties': {'type': {'const': messages.RECONNECT}, 'details': _TEXT},
                           'required': ['type', 'details']},
                          'Connect again: with a new session after close 4401, with the same one after 1012.'),
}


def _unused(name, taken):
    number, unused = 1, name
    while unused in taken:
        number += 1
        unused = '{}{}'.format(name, number)
    return unused


def as_typescript(found):
    """Return an interface for each endpoint, for ``new SocketRouter<RoomMessages>()`` of ``sockets.js``."""
    parts = ['// Made by "manage.py sockets describe --typescript": what may be sent, what comes, and what is in it.']
    taken = set()
    for endpoint in found:
        name = _unused(re.sub(r'\W', '_', endpoint.name) + 'Messages', taken)
        taken.add(name)
        sends, is_open = [], endpoint.is_open
        for route in endpoint.routes:
            if not isinstance(route.pattern, str):
                is_open = True
                continue
            fields = 'Record<string, any>' if route.form is None else typescript(schema_of(route.form))
            said = summary(route.function.function).replace('*/', '* /')
            sends += ['    /** {} */'.format(said)] if said else []
            sends.append('    {}: {{fields: {}; reply: any}};'.format(json.dumps(route.pattern), fields))
        if is_open or not sends:
            sends.append('    [type: string]: {fields: any; reply: any};')
        receives = ['    {}: {};'.format(json.dumps(type), typescript(schema_of_sent(form)))
                    for type, form in endpoint.sends.items()]
        about = endpoint.address + (
            ' takes binary frames, too' if endpoint.binary is not None else '')
        parts.append('\n'.join([
            '/** {} */'.format(about.replace('*/', '* /')), 'export interface {} {{'.format(name),
            *(['  receives: {', *receives, '  };'] if receives else ['  receives: Record<string, any>;']),
            '  sends: {', *sends, '  };', '}']))
    return '\n\n'.join(parts)


def typescript(schema):
    """Return the TypeScript type of a JSON Schema; ``any`` for what has none."""
    if 'enum' in schema or 'const' in schema:
        return ' | '.join(json.dumps(value) for value in schema.get('enum', [schema.get('const')]))
    if 'anyOf' in schema:
        return ' | '.join(typescript(part) for part in schema['anyOf'])
    if isinstance(schema.get('type'), list):
        return ' | '.join(typescript({**schema, 'type': type}) for type in schema['type'])
    if schema.get('type') == 'array':
        return 'Array<{}>'.format(typescript(schema.get('items', {})))
    if schema.get('type') == 'object' and schema.get('properties'):
        required = schema.get('required', ())
        return '{{{}}}'.format('; '.join(
            '{}{}: {}'.format(json.dumps(name), '' if name in required else '?', typescript(field))
            for name, field in schema['properties'].items()))
    return {'string': 'string', 'integer': 'number', 'number': 'number', 'boolean': 'boolean', 'null': 'null',
            'object': 'Record<string, any>'}.get(schema.get('type'), 'any')
