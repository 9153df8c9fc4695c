import os
import re
import sys
from datetime import timedelta

import django
import pytest

from sockets.engines.channels1 import compat


def test_the_modules_of_djangos_six_can_be_imported():
    import urllib.parse

    import channels.staticfiles
    from django.utils.six.moves.urllib.parse import urlparse

    assert urlparse is urllib.parse.urlparse is channels.staticfiles.urlparse


@pytest.mark.skipif(sys.version_info < (3, 12), reason='the importer works on this Python by itself')
def test_the_importer_does_not_claim_what_is_not_its_own():
    from django.utils import six

    assert six._importer.find_spec('no.such.module') is None


def test_a_connection_to_postgresql_is_believed_to_be_utc(settings):
    pytest.importorskip('psycopg2')
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql'}}
    compat.patch_postgresql()
    compat.patch_postgresql()
    from django.db.backends.postgresql import base
    from django.db.backends.postgresql.utils import utc_tzinfo_factory as strict

    assert base.utc_tzinfo_factory(0) == base.utc_tzinfo_factory(timedelta(0)) == strict(0)
    with pytest.raises(AssertionError, match='UTC'):
        base.utc_tzinfo_factory(60)


def test_an_environment_of_tox_has_the_django_that_it_is_called_after():
    # Django REST framework 3.12 had pip put Django 2.2 in the place of each older one, and nobody noticed.
    name = re.search(r'-django(\d)(\d+)$', os.environ.get('TOX_ENV_NAME', ''))
    assert name is None or django.VERSION[:2] == tuple(map(int, name.groups()))
