"""A site whose users have no column ``is_active``, and whose sessions are not Django's own: ``tests.foreign``."""

import subprocess
import sys

import pytest

from . import servers

BEGIN = """
import time
import django
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from sockets import presence
from sockets.models import Socket
from sockets.testing import SocketClient, sandbox
call_command('migrate', run_syncdb=True, verbosity=0)
Member = get_user_model()
ada = Member.objects.create(name='ada')
browser = Client()
assert browser.get('/in/').content == b'welcome'
with sandbox():
    socket = SocketClient('/ws/', browser=browser, raise_exceptions=False)
    socket.connect()
    assert socket.request('WHO') == {'type': 'YOU', 'name': 'ada'}
"""
# Each begins with a connection of somebody who is logged in.
IT_WORKS = (
    BEGIN
    + """
    row = Socket.objects.get()
    assert row.user == ada and row.session is None
    call_command('check', fail_level='ERROR')
    assert browser.get('/out/').content == b'bye'
    assert socket.close_code == 4401 and not Socket.objects.exists()
"""
)
PURGE = (
    BEGIN
    + """
    from django.contrib.sessions.models import Session
    from sockets.models import Membership
    left = Membership.objects.create(socket_id=12345, key='k', name='left by a process that died')
    assert presence.purge() == 0
    call_command('sockets', 'purge')
    presence.Housekeeper().look()
    assert not Membership.objects.exists()
    # Nobody tells of an update, and no query finds it; a frame does, once what is kept is a second old.
    Member.objects.update(has_left=True)
    assert presence.purge() == 0
    time.sleep(1.1)
    socket.send('WHO')
    assert socket.close_code == 4401
"""
)
SAVED = (
    BEGIN
    + """
    ada.has_left = True
    ada.save()
    assert socket.close_code == 4401
"""
)


WITHOUT_THE_APP = """
from tests.foreign import settings
settings.INSTALLED_APPS.remove('django.contrib.sessions')
import django
django.setup()
from django.core.checks import run_checks
found = {message.id: message for message in run_checks()}
assert set(found) - {'fields.E307'} == {'sockets.E002', 'fields.E300'}, found
hint = found['sockets.E002'].hint
assert "Add 'django.contrib.sessions' to INSTALLED_APPS" in hint and 'fields.E300' in hint
assert "'tests.foreign.sessions', stays as it is" in hint and 'beside it' in hint
"""


def run(program, **environment):
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=str(servers.ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=servers.environment(DJANGO_SETTINGS_MODULE='tests.foreign.settings', **environment),
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


@pytest.mark.parametrize('program', [IT_WORKS, PURGE, SAVED], ids=['it works', 'purge', 'saved'])
def test_a_site_with_users_and_sessions_of_its_own_works(program):
    assert 'Traceback' not in run(program)


def test_a_site_without_the_table_of_sessions_is_told_to_have_it_beside_its_own():
    run(WITHOUT_THE_APP)


def test_it_works_with_django_user_sessions():
    pytest.importorskip('user_sessions')
    assert 'Traceback' not in run(
        IT_WORKS,
        SESSION_ENGINE='user_sessions.backends.db',
        MORE_APPS='user_sessions',
        SESSION_MIDDLEWARE='user_sessions.middleware.SessionMiddleware',
    )
