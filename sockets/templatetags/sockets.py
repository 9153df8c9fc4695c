"""``{% load sockets %}{% socket_script %}``: the browser client in a template, and where its streams stand."""

import json

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import mark_safe

from ..streams.positions import check_position

register = template.Library()


@register.simple_tag
def socket_script():
    """Return the element that loads ``sockets.js``, by the name that the storage of static files gave it."""
    return format_html('<script type="module" src="{}"></script>', static('sockets/sockets.js'))


@register.simple_tag
def stream_position(*positions):
    """Return the element that tells ``sockets.js`` up to where the page has the messages of streams: ``positions`` as
    ``Stream.position()`` returns them, or the ``kept`` of a message. ``TypeError`` for anything else.
    """
    if not positions:
        raise template.TemplateSyntaxError(
            'stream_position has no position to print: write {% stream_position position %}, and have the view put '
            "Stream(name).position() into its context as 'position'."
        )
    data = json.dumps([_position(position) for position in positions], separators=(',', ':'))
    # As Django's json_script does: nothing in a name ends the element.
    for character in '<>&':
        data = data.replace(character, f'\\u{ord(character):04x}')
    return format_html('<script type="application/json" data-stream-positions>{}</script>', mark_safe(data))


def _position(position):
    # What Django makes of a variable that the context lacks.
    if position in ('', None):
        raise TypeError(
            'A position is what Stream.position() returns, and stream_position was given nothing: a variable of this name is '
            'not in the context of the template. Have the view put it there.'
        )
    check_position(position)
    if not isinstance(position.get('stream'), str):
        raise TypeError(
            f'A position names its stream, as what Stream.position() returns does, and {position!r} does not.'
        )
    return {name: position[name] for name in ('stream', 'epoch', 'offset')}
