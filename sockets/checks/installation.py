"""What a project has to install: apps and middleware."""

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning, register

from .. import engine
from ..engines import DISTRIBUTIONS

_APPS = (
    ('django.contrib.sessions', 'sockets.E002', 'the rows of connections refer to its table'),
    ('django.contrib.auth', 'sockets.E003', 'a connection belongs to a user'),
)
# Engines that keep sessions in the table of django.contrib.sessions.
_IN_ITS_TABLE = ('django.contrib.sessions.backends.db', 'django.contrib.sessions.backends.cached_db')
_MIDDLEWARE = (
    ('django.contrib.sessions.middleware.SessionMiddleware', 'sockets.W001'),
    ('django.contrib.auth.middleware.AuthenticationMiddleware', 'sockets.W002'),
)


@register('sockets')
def check_installed(app_configs=None, **kwargs):
    """E001 to E003: apps that ``sockets`` needs; W001, W002: middleware that gives pages their session and user."""
    found = [
        Error(
            f'{app!r} is not in INSTALLED_APPS, but {why}.',
            hint=f'Add {app!r} to INSTALLED_APPS.{_stays_unused(app)}',
            id=id,
        )
        for app, id, why in (*engine.current().apps, *_APPS)
        if not apps.is_installed(app)
    ]
    # A subclass of the middleware will do, whatever its name begins with.
    return found + [
        Warning(
            'No {} in MIDDLEWARE: pages get no session, and every socket is anonymous.'.format(path.rpartition('.')[2]),
            hint=f'Add {path!r} to MIDDLEWARE.',
            id=id,
        )
        for path, id in _MIDDLEWARE
        if not any(entry.endswith(path.rpartition('.')[2]) for entry in settings.MIDDLEWARE or ())
    ]


@register('sockets')
def check_distributions(app_configs=None, **kwargs):
    """E014: both distributions of this package, of which each has the files of the other."""
    found = [name for name in DISTRIBUTIONS.values() if _is_distributed(name)]
    if len(found) < 2:
        return []
    names = ' '.join(found)
    return [
        Error(
            f'{found[0]} and {found[1]} are both installed: each has written over the files of the other, and to remove one '
            'removes the files of both.',
            hint=f'Type: pip uninstall -y {names}; then pip install the one for your Channels.',
            id='sockets.E014',
        )
    ]


def _is_distributed(name):
    try:
        from importlib import metadata
    except ImportError:
        # Python 3.7, for which there is only one.
        return False
    # Only what is installed has this file. A build leaves an egg-info beside the package in a checkout.
    return any(found.read_text('METADATA') is not None for found in metadata.distributions(name=name))


def _stays_unused(app):
    """Return an explanation for a site that keeps its sessions elsewhere and may do without Django's app."""
    session_engine = settings.SESSION_ENGINE
    if app != 'django.contrib.sessions' or session_engine in _IN_ITS_TABLE:
        return ''
    return (
        f' Your SESSION_ENGINE, {session_engine!r}, stays as it is: the app stands beside it, and its table stays empty. That mends '
        'fields.E300 and E307 of sockets.Socket.session as well.'
    )


def is_checkable():
    """Whether the rest can be checked; if not, ``check_installed`` and ``check_settings`` say why."""
    return all(apps.is_installed(app) for app, _, _ in engine.current().apps) and isinstance(
        getattr(settings, 'SOCKETS', {}), dict
    )
