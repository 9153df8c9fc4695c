"""What Django keeps for the time of a request: script prefix, URL configuration, language, time zone."""

import contextvars
import logging
import threading

from django.core.cache import caches
from django.urls import base as urls
from django.utils import timezone
from django.utils.translation import trans_real

from .. import conf

logger = logging.getLogger('sockets')

# The functions that Django has for them cost ten times as much, which would be felt in every frame, and cannot tell what
# was never set.
_LOCALS = urls._prefixes, urls._urlconfs, trans_real._active, timezone._active
_UNSET = object()
_PLAIN = '/', _UNSET, _UNSET, _UNSET

# Since Django 3, they belong to a context, and no longer to a thread.
HAS_CONTEXTS = not isinstance(timezone._active, threading.local)

_thread = threading.local()


def call_fresh(root_path, function, *args):
    """Return what ``function(*args)`` returns. It finds nothing of what was set before, and what it sets is gone
    after it. ``root_path`` is what ``reverse()`` begins with, unless ``FORCE_SCRIPT_NAME`` says so.
    """
    if HAS_CONTEXTS:
        return fresh_context(root_path).run(function, *args)
    before, fresh = _state(), _fresh(root_path)
    if fresh != before:
        _set_state(fresh, before)
    try:
        return function(*args)
    finally:
        after = _state()
        if after != before:
            _set_state(before, after)


def fresh_context(root_path=None):
    """Return a new ``contextvars.Context`` for one request in this thread, since Django 3."""
    context = _base().copy()
    if root_path or conf.of_django('FORCE_SCRIPT_NAME') is not None:
        prefix = _prefix(root_path)
        if prefix != '/':
            context.run(urls.set_script_prefix, prefix)
    return context


def forget():
    """Forget what was set in this thread or context."""
    if HAS_CONTEXTS:
        # Nearly always, nothing was set at all: a request has a context of its own.
        for local in _LOCALS if contextvars.copy_context() else ():
            if hasattr(local, 'value'):
                del local.value
        if conf.of_django('FORCE_SCRIPT_NAME') is not None:
            set_root_path(None)
        return
    before, fresh = _state(), _fresh(None)
    if fresh != before:
        _set_state(fresh, before)


def set_root_path(root_path):
    """Have ``reverse()`` begin with ``root_path``, unless ``FORCE_SCRIPT_NAME`` says what with."""
    urls.set_script_prefix(_prefix(root_path))


def kept_caches():
    """Return the caches of this thread that all its requests use."""
    if HAS_CONTEXTS:
        return _thread.__dict__.get('caches', ())
    return caches._caches.__dict__.get('caches', {}).values()


def _base():
    """Return the context of which each request of this thread has a copy."""
    found = _thread.__dict__.get('base')
    if found is None or _thread.handler is not caches._connections:
        # A test may have other CACHES.
        found, _thread.handler = contextvars.Context(), caches._connections
        _thread.caches = found.run(_make_caches)
        _thread.base = found
    return found


def _make_caches():
    """Return all caches of this context: made in each copy of it, they would connect anew for each request."""
    made = []
    for alias in caches.settings:
        try:
            made.append(caches[alias])
        except Exception as error:
            # Who uses it is told.
            logger.debug('The cache %r cannot be made: %s', alias, error)
    return made


def _state():
    # getattr() takes twenty times as long to find nothing, which is the rule.
    prefixes, urlconfs, languages, zones = _LOCALS
    return (
        prefixes.__dict__.get('value', _UNSET),
        urlconfs.__dict__.get('value', _UNSET),
        languages.__dict__.get('value', _UNSET),
        zones.__dict__.get('value', _UNSET),
    )


def _set_state(state, now):
    for local, value, present in zip(_LOCALS, state, now):
        if value is present:
            continue
        if value is not _UNSET:
            local.value = value
        elif present is not _UNSET:
            del local.value


def _prefix(root_path):
    forced = conf.of_django('FORCE_SCRIPT_NAME')
    if forced is not None:
        root_path = forced
    return '/' if not root_path else root_path if root_path.endswith('/') else root_path + '/'


def _fresh(root_path):
    if not root_path and conf.of_django('FORCE_SCRIPT_NAME') is None:
        return _PLAIN
    return _prefix(root_path), _UNSET, _UNSET, _UNSET
