"""No version of Django, and no setting of a project, wants a migration that is not there."""

import os
import subprocess
import sys

import pytest
from django.db import connection

from sockets.models import StreamMessage

from .servers import ROOT

PROGRAM = """
from tests import settings
settings.{} = {!r}
import django
django.setup()
from django.core.management import call_command
call_command('makemigrations', 'sockets', check=True, dry_run=True)
"""


# What Django makes of DEFAULT_AUTO_FIELD is fixed as the models are imported.
@pytest.mark.parametrize(
    'name, value',
    [('DEBUG', False), ('DEFAULT_AUTO_FIELD', 'django.db.models.BigAutoField'), ('USE_TZ', False)],
)
def test_no_migration_is_missing(name, value):
    said = subprocess.check_output(
        [sys.executable, '-W', 'ignore', '-c', PROGRAM.format(name, value)],
        cwd=str(ROOT),
        env={**os.environ, 'DJANGO_SETTINGS_MODULE': 'tests.settings'},
        text=True,
    )
    assert said.strip() == "No changes detected in app 'sockets'"


@pytest.mark.django_db
def test_messages_without_a_number_have_an_index_of_their_own():
    # No model says so. SQLite makes a table anew to alter it, and such an index is gone then.
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, StreamMessage._meta.db_table)
    columns = [index['columns'] for name, index in found.items() if name == 'sockets_streammessage_unnumbered']
    assert columns == [['offset'] if connection.vendor == 'mysql' else ['key', 'id']]
    assert ['offset'] not in [index['columns'] for index in found.values()] or connection.vendor == 'mysql'
