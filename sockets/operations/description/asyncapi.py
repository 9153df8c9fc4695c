"""Endpoints as a document of AsyncAPI."""

import re

from ... import messages
from ...contracts.schemas import schema_of, schema_of_sent
from ...messages import PAYLOAD, STREAM
from .endpoints import docstring, first_line, options, summary, type_of, unused


def as_asyncapi(found, title, version):
    """Return an AsyncAPI 3 document, as a ``dict``, of what clients may send and of what handlers send."""
    channels, operations = {}, {}
    for endpoint in found:
        name = unused(endpoint.name, channels)
        # Of what clients send and of what handlers send, a channel has one dict.
        answers = {key: {'$ref': '#/components/messages/' + key} for key in _ANSWERS if key not in endpoint.sends}
        for type, form in endpoint.sends.items():
            answers[unused(_key(type), answers)] = _of_type(type, form)
        sent = {
            'HELLO': _message(_envelope({'const': messages.HELLO}), 'Who am I?'),
            'PING': _message(_envelope({'const': messages.PING}), 'I am alive.'),
        }
        for route in endpoint.routes:
            sent[unused(_key(type_of(route)), {**sent, **answers})] = _of_route(route)
        if endpoint.binary is not None:
            sent[unused('bytes', {**sent, **answers})] = {
                **_message({'type': 'string', 'format': 'binary'}, summary(endpoint.binary.function.function)),
                'contentType': 'application/octet-stream',
            }
        for stream, part in endpoint.streams:
            for route in part.routes:
                sent[unused(_key(stream + '_' + type_of(route)), {**sent, **answers})] = _on(stream, _of_route(route))
            for type, form in part.sends.items():
                answers[unused(_key(stream + '_' + type), {**sent, **answers})] = _on(stream, _of_type(type, form))
        channel = channels[name] = {'address': endpoint.address, 'messages': {**sent, **answers}}
        if endpoint.parameters:
            channel['parameters'] = {parameter: {} for parameter in endpoint.parameters}
        if docstring(endpoint.handler):
            channel['description'] = docstring(endpoint.handler)
        for action, keys in (('receive', sent), ('send', answers)):
            operations[f'{name}.{action}'] = {
                'action': action,
                'channel': {'$ref': '#/channels/' + name},
                'messages': [{'$ref': f'#/channels/{name}/messages/{key}'} for key in keys],
            }
    return {
        'asyncapi': '3.0.0',
        'info': {'title': title, 'version': version},
        'defaultContentType': 'application/json',
        'channels': channels,
        'operations': operations,
        'components': {'messages': _ANSWERS},
    }


def _key(type):
    return re.sub(r'[\W_]+', '_', type).strip('_') or 'any'


def _of_route(route):
    type = (
        {'const': route.pattern}
        if isinstance(route.pattern, str)
        else {'type': 'string', 'pattern': f'^(?:{route.pattern.pattern})'}
    )
    schema = {} if route.form is None else schema_of(route.form)
    payload = _envelope(type, schema)
    return _message(payload, summary(route.function.function), options(route))


def _of_type(type, form):
    schema = schema_of_sent(form)
    return _message(_envelope({'const': type}, schema), first_line(schema))


def _on(stream, message):
    """Return ``message`` as it travels on a stream."""
    return {
        **message,
        'payload': {
            'type': 'object',
            'required': [STREAM, PAYLOAD],
            'properties': {STREAM: {'const': stream}, PAYLOAD: message['payload']},
        },
    }


def _envelope(type, schema=None):
    schema = dict(schema or {})
    schema.update(
        type='object',
        properties={messages.TYPE: type, messages.REF: {}, **schema.get('properties', {})},
        required=[messages.TYPE, *schema.get('required', ())],
    )
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
    'GOT_HELLO': _message(
        {
            'type': 'object',
            'properties': {'type': {'const': messages.GOT_HELLO}},
            'required': ['type', 'user_id', 'socket_id', 'path'],
        },
        'The answer to HELLO.',
    ),
    'ACK': _message(
        {'type': 'object', 'properties': {'type': {'const': messages.ACK}, 'ref': {}}, 'required': ['type', 'ref']},
        'The frame of this ref was handled, and has no other answer.',
    ),
    'ERROR': _message(
        {
            'type': 'object',
            'required': ['type', 'code', 'details'],
            'properties': {
                'type': {'const': messages.ERROR},
                'code': _TEXT,
                'details': _TEXT,
                'errors': {'type': 'object'},
                'retry_after': {'type': 'number'},
                'ref': {},
            },
        },
        'The frame was not handled.',
    ),
    'RECONNECT': _message(
        {
            'type': 'object',
            'properties': {'type': {'const': messages.RECONNECT}, 'details': _TEXT},
            'required': ['type', 'details'],
        },
        'Connect again: with a new session after close 4401, with the same one after 1012.',
    ),
}
