"""What the doctor finds of channel layers and workers."""

import re
from datetime import timedelta

import redis
from django.utils import timezone

from sockets import presence
from sockets.engines.channels1.channel_layer import channel_layer
from sockets.layers import InMemoryChannelLayer, RedisChannelLayer
from sockets.layers.leases import FileLeases
from sockets.models import Socket
from sockets.operations import doctor
from sockets.testing import sandbox


def found(findings):
    return {name: (ok, text, remedy) for name, ok, text, remedy in findings}


def test_a_site_without_a_worker_is_told_to_start_one(layer, transactional_db, monkeypatch):
    monkeypatch.setattr(doctor, 'WORKER_PATIENCE', 0.05)
    monkeypatch.setattr(doctor, 'examine_settings', lambda: [doctor.Finding('checks', True, 'Nothing was found.')])
    examined = found(doctor.examine())
    assert list(examined) == ['checks', 'database', 'layer', 'worker', 'server']
    assert examined['database'][0] is examined['layer'][0] is True
    assert re.match(r'\w+ answers in \d+\.\d ms; 0 connections\.$', examined['database'][1])
    if channel_layer().local_only():
        assert examined['worker'][:2] == (None, 'Nobody to ask: an in-memory layer reaches its own process only.')
    else:
        assert examined['worker'][0] is False and 'manage.py runsockets' in examined['worker'][2]
        assert re.search(r' Redis \d+\.', examined['layer'][1])


def test_a_redis_that_throws_messages_away_is_bad(redis_url):
    client = redis.StrictRedis.from_url(redis_url)
    with sandbox(RedisChannelLayer(hosts=[redis_url])):
        try:
            client.config_set('maxmemory-policy', 'allkeys-lru')
            assert doctor.examine_layer()[0].ok is True
            client.config_set('maxmemory', '1gb')
            ((name, ok, text, remedy),) = doctor.examine_layer()
            assert ok is False and 'throws messages away (allkeys-lru)' in text and 'noeviction' in remedy
        finally:
            client.config_set('maxmemory', 0), client.config_set('maxmemory-policy', 'noeviction')


def test_a_layer_that_loses_what_it_takes_is_bad(monkeypatch):
    monkeypatch.setattr(doctor, 'PATIENCE', 0.1)
    layer = InMemoryChannelLayer()
    layer.send = lambda channel, message: None
    with sandbox(layer):
        assert doctor.examine_layer() == [doctor.Finding('layer', False, 'It takes messages and gives none back.')]


def test_servers_of_a_redis_are_told_with_their_connections(db, redis_url):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='doctor:')
    layer.flush()
    with sandbox(layer):
        assert doctor.examine_servers()[0][1:] == (False, 'None is running.', 'Type: python manage.py runsockets')
        for name in ('one!a', 'one!b', 'dead!c'):
            Socket.objects.create(channel_name=name, path='/')
        layer._leases.renew('one!'), layer._leases.renew('two!')
        living, gone = doctor.examine_servers()
        assert living[1:] == (True, 'one! (2 connections), two! (0 connections).', '')
        assert gone.ok is False and gone.text.startswith('1 rows are of 1 servers that are gone')
        Socket.objects.filter(server='dead!').update(layer='other:1:')
        living, unheard = doctor.examine_servers()
        assert unheard.ok is None and unheard.text.startswith("1 rows are of servers on other layers ('other:1:')")
        Socket.objects.filter(layer='other:1:').delete()
        assert len(doctor.examine_servers()) == 1


def test_two_processes_with_an_in_memory_layer_are_bad(db, tmp_path):
    processes = FileLeases(str(tmp_path))
    with sandbox(InMemoryChannelLayer(leases=FileLeases(str(tmp_path)))):
        assert doctor.examine_servers()[0][1:] == (None, 'None holds a connection.', '')
        # The second one has been killed, or is on another machine.
        for server in ('one!', 'two!'):
            Socket.objects.create(channel_name=server + 'a', path='/')
        processes.hold('one!')
        assert doctor.examine_servers()[0][1:] == (True, 'one! (1 connections).', '')
        processes.hold('two!')
        ((name, ok, text, remedy),) = doctor.examine_servers()
        assert ok is False and text.startswith('2 servers run') and 'sockets.layers.RedisChannelLayer' in remedy


def test_rows_of_servers_that_are_gone_are_bad_on_an_in_memory_layer(db, tmp_path):
    # After each save of a file under runserver there were more of them, and the doctor found nothing to say.
    processes = FileLeases(str(tmp_path))
    with sandbox(InMemoryChannelLayer(leases=FileLeases(str(tmp_path)))):
        for server in ('killed!', 'elsewhere!', 'lost!', 'one!'):
            Socket.objects.create(channel_name=server + 'a', path='/')
        (tmp_path / 'killed_').write_text('')
        processes.hold('one!')
        Socket.objects.filter(server='lost!').update(modified=timezone.now() - timedelta(minutes=5))
        living, gone = doctor.examine_servers()
        assert living.ok is True
        assert gone.ok is False and gone.text.startswith('2 rows are of 2 servers that are gone')
        assert 'python manage.py sockets purge' in gone.remedy
        assert presence.purge() == 2
        assert [finding.ok for finding in doctor.examine_servers()] == [True]
        assert set(Socket.objects.values_list('server', flat=True)) == {'elsewhere!', 'one!'}
