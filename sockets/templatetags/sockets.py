"""``{% load sockets %}{% socket_script %}``: the browser client in a template."""

from django import template
from django.templatetags.static import static
from django.utils.html import format_html

register = template.Library()


@register.simple_tag
def socket_script():
    """Return the element that loads ``sockets.js``, by the name that the storage of static files gave it."""
    return format_html('<script type="module" src="{}"></script>', static('sockets/sockets.js'))
