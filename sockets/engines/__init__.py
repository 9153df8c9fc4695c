"""What sockets run on, and which of it there is. Imports nothing of ours before that is known."""

from importlib import import_module

# What engines run on, and where the one is for each major version of that.
PACKAGE = 'channels'
ENGINES = {'1': 'sockets.engines.channels1', '4': 'sockets.engines.channels4'}
# The distribution of each stack. Both hold this package: only one can be installed at a time. setup.py reads this,
# without an import.
DISTRIBUTIONS = {
    'channels1': 'django-routed-sockets',
    'channels4': 'django-routed-sockets-asgi',
}
INSTALL = (
    'type "python -m pip install \'channels>=4.3,<5\'", or, for a Django before 3, '
    '"python -m pip install \'channels<2\' daphne asgi_redis".'
)


def prepare():
    """Import the package of this project's engine and return its name, ``None`` if there is nothing to run on.

    To be called before any app is ready: what an engine runs on may need its help by then.
    """
    try:
        version = import_module(PACKAGE).__version__
    except ImportError as error:
        # What is installed and broken says so itself.
        if error.name != PACKAGE:
            raise
        return None
    package = ENGINES.get(version.partition('.')[0])
    if package is None:
        from django.core.exceptions import ImproperlyConfigured

        raise ImproperlyConfigured(f'sockets runs on Channels 4 or Channels 1, not on Channels {version}: {INSTALL}')
    import_module(package)
    return package
