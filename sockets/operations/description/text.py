"""Endpoints as text for people."""

from ...contracts.schemas import schema_of, schema_of_sent
from ...routes import permission_names
from .endpoints import first_line, options, summary, type_of
from .typescript import typescript


def as_text(found):
    """Return the endpoints as text for people."""
    lines = []
    for endpoint in found:
        if lines:
            lines.append('')
        lines.append(
            '{}  {}.{}{}'.format(
                endpoint.address,
                endpoint.handler.__module__,
                endpoint.handler.__qualname__,
                '  (login required)' if endpoint.handler.login_required else '',
            )
        )
        if endpoint.handler.permission:
            lines[-1] += '  (permission {})'.format(', '.join(permission_names(endpoint.handler.permission)))
        if summary(endpoint.handler):
            lines.append('    ' + summary(endpoint.handler))
        width = max([len(type_of(route)) for route in endpoint.routes] or [0])
        for route in endpoint.routes:
            lines.append(f'  {type_of(route).ljust(width)}  {_about(route)}'.rstrip())
            if route.form is not None:
                lines += _fields(schema_of(route.form))
        if endpoint.is_open:
            lines.append(f'  (any other type)  {summary(endpoint.handler.default_route)}'.rstrip())
        if endpoint.binary is not None:
            lines.append(f'  (binary frames)  {_about(endpoint.binary)}'.rstrip())
        for type, form in endpoint.sends.items():
            schema = schema_of_sent(form)
            lines.append(f'  sends {type}  {first_line(schema)}'.rstrip())
            lines += _fields(schema)
        for name, stream in endpoint.streams:
            head, *rest = as_text([stream]).splitlines()
            lines.append('  stream {}  {}'.format(name, head.partition('  ')[2]))
            lines += ['  ' + line for line in rest]
    return '\n'.join(lines)


def _fields(schema):
    return [
        '      {}{}: {}'.format(name, '' if name in schema.get('required', ()) else '?', typescript(field))
        for name, field in schema.get('properties', {}).items()
    ]


def _about(route):
    """Return what a route is for, and in brackets what it asks for."""
    asked = options(route)
    return ' '.join(filter(None, [summary(route.function.function), f'({asked})' if asked else '']))
