import sys
from datetime import timedelta

import pytest
from daphne.ws_protocol import WebSocketProtocol

from sockets import compat


def test_the_modules_of_djangos_six_can_be_imported():
    import urllib.parse

    import channels.staticfiles
    from django.utils.six.moves.urllib.parse import urlparse
    assert urlparse is urllib.parse.urlparse is channels.staticfiles.urlparse


@pytest.mark.skipif(sys.version_info < (3, 12), reason='the importer works on this Python by itself')
def test_the_importer_does_not_claim_what_is_not_its_own():
    from django.utils import six
    assert six._importer.find_spec('no.such.module') is None


@pytest.mark.parametrize('code, called', [
    (True, ('sendClose', 1000)), (1000, ('sendClose', 1000)), (4401, ('sendClose', 4401)),
    (1011, ('sendCloseFrame', 1011)), (1012, ('sendCloseFrame', 1012)),
])
def test_daphne_can_close_with_codes_that_autobahn_keeps_to_itself(code, called):
    class Protocol:
        def sendClose(self, code):
            calls.append(('sendClose', code))

        def sendCloseFrame(self, code, reasonUtf8, isReply):
            assert reasonUtf8 == (b'restart' if code == 1012 else None)
            calls.append(('sendCloseFrame', code))

    calls = []
    compat.heal_daphne()
    WebSocketProtocol.serverClose(Protocol(), code)
    assert calls == [called]


def test_a_connection_to_postgresql_is_believed_to_be_utc(settings):
    pytest.importorskip('psycopg2')
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql'}}
    compat.heal_postgresql()
    compat.heal_postgresql()
    from django.db.backends.postgresql import base
    from django.db.backends.postgresql.utils import utc_tzinfo_factory as strict
    assert base.utc_tzinfo_factory(0) == base.utc_tzinfo_factory(timedelta(0)) == strict(0)
    with pytest.raises(AssertionError, match='UTC'):
        base.utc_tzinfo_factory(60)
