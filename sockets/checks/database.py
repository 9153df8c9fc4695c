"""The database, and what refers to the rows of connections."""

from django.apps import apps
from django.conf import settings
from django.core.checks import Warning, register
from django.db import DEFAULT_DB_ALIAS


@register('sockets')
def check_database(app_configs=None, **kwargs):
    """W004: a worker that connects to the database anew for every frame."""
    database = settings.DATABASES.get(DEFAULT_DB_ALIAS, {})
    # SQLite's connections cost nothing.
    is_kept = database.get('CONN_MAX_AGE', 0) != 0 or database.get('OPTIONS', {}).get('pool')
    if is_kept or 'sqlite' in database.get('ENGINE', 'sqlite'):
        return []
    return [
        Warning(
            'CONN_MAX_AGE is 0: a worker connects to the database anew for every frame that uses it.',
            hint="Add 'CONN_MAX_AGE': 60 to DATABASES['default'].",
            id='sockets.W004',
        )
    ]


@register('sockets')
def check_relations(app_configs=None, **kwargs):
    """W011: foreign keys that would keep a connection's row from being removed."""
    # Without it, Django has said so.
    if not apps.is_installed('sockets'):
        return []
    from ..models import Socket

    return [
        Warning(
            f'{relation.field} has a constraint, and rows of connections are removed without asking who refers to them: '
            'its database will refuse.',
            obj=relation.related_model,
            hint='Give it db_constraint=False, and delete its rows in a disconnect function.',
            id='sockets.W011',
        )
        for relation in Socket._meta.related_objects
        if relation.field.db_constraint
    ]
