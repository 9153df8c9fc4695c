"""What old dependencies need to run on new Pythons and drivers. Each goes when its dependency does."""

import importlib.util
from datetime import timedelta


def patch_six_importer():
    """Python 3.12 imports through ``find_spec`` only; the importer of Django's six has ``find_module``.

    To be called before any app is ready: Channels' own ``ready()`` imports ``django.utils.six.moves.urllib``.
    """
    from django.utils import six

    importer = type(six._importer)
    if hasattr(importer, 'find_spec'):
        return

    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname in self.known_modules else None

    importer.find_spec = find_spec
    importer.create_module = lambda self, spec: self.load_module(spec.name)
    importer.exec_module = lambda self, module: None


def patch_postgresql():
    """psycopg2 2.9 passes a ``timedelta`` to ``tzinfo_factory``, which Django 2.2 does not take for zero."""
    from django.conf import settings

    if not any('postg' in database.get('ENGINE', '') for database in settings.DATABASES.values()):
        return
    from django.db.backends.postgresql import base

    if hasattr(base, 'utc_tzinfo_factory') and not hasattr(base.utc_tzinfo_factory, 'is_patched'):
        strict = base.utc_tzinfo_factory

        def utc_tzinfo_factory(offset):
            return strict(0 if offset == timedelta(0) else offset)

        utc_tzinfo_factory.is_patched = True
        base.utc_tzinfo_factory = utc_tzinfo_factory
