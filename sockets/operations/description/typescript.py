"""Endpoints as types of TypeScript."""

import json
import re

from ...contracts.schemas import schema_of, schema_of_sent
from .endpoints import summary, unused


def as_typescript(found):
    """Return an interface for each endpoint, for ``new SocketRouter<RoomMessages>()`` of ``sockets.js``."""
    parts = ['// Made by "manage.py sockets describe --typescript": what may be sent, what comes, and what is in it.']
    taken = set()
    for endpoint in found:
        name = unused(re.sub(r'\W', '_', endpoint.name) + 'Messages', taken)
        taken.add(name)
        sends, is_open = [], endpoint.is_open
        for route in endpoint.routes:
            if not isinstance(route.pattern, str):
                is_open = True
                continue
            fields = 'Record<string, any>' if route.form is None else typescript(schema_of(route.form))
            said = summary(route.function.function).replace('*/', '* /')
            sends += [f'    /** {said} */'] if said else []
            sends.append(f'    {json.dumps(route.pattern)}: {{fields: {fields}; reply: any}};')
        if is_open or not sends:
            sends.append('    [type: string]: {fields: any; reply: any};')
        receives = [
            f'    {json.dumps(type)}: {typescript(schema_of_sent(form))};' for type, form in endpoint.sends.items()
        ]
        about = endpoint.address + (' takes binary frames, too' if endpoint.binary is not None else '')
        parts.append(
            '\n'.join(
                [
                    '/** {} */'.format(about.replace('*/', '* /')),
                    f'export interface {name} {{',
                    *(['  receives: {', *receives, '  };'] if receives else ['  receives: Record<string, any>;']),
                    '  sends: {',
                    *sends,
                    '  };',
                    '}',
                ]
            )
        )
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
        return '{{{}}}'.format(
            '; '.join(
                '{}{}: {}'.format(json.dumps(name), '' if name in required else '?', typescript(field))
                for name, field in schema['properties'].items()
            )
        )
    return {
        'string': 'string',
        'integer': 'number',
        'number': 'number',
        'boolean': 'boolean',
        'null': 'null',
        'object': 'Record<string, any>',
    }.get(schema.get('type'), 'any')
