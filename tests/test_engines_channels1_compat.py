import sys
from datetime import timedelta

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
