"""What is kept of a connection between its frames, and when it is dropped."""

import threading

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from sockets import presence
from sockets.connection import identity_cache, identity_entries
from sockets.connection.identity_cache import IdentityCache
from sockets.connection.memory import Memory, memories
from sockets.models import Socket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def identities(monkeypatch):
    """The identities of a process, empty."""
    found = IdentityCache()
    monkeypatch.setattr(identity_cache, 'cache', found)
    return found


@pytest.fixture
def row(alice, layer):
    browser = Client()
    browser.force_login(alice)
    Socket.objects.create(
        channel_name='daphne.response.a!1', user=alice, session_id=browser.session.session_key, path='/'
    )
    return read


def read():
    return Socket.objects.select_related('user', 'session').defer('handshake').get()


@pytest.fixture
def keep(identities, row):
    """A function that reads the row and keeps it, and returns the memory of its connection."""

    def read_and_keep():
        memory, reading = Memory(0), identities.begin()
        identities.keep(memory, row(), reading)
        return memory

    return read_and_keep


def writes():
    """Yield each way in which this process may write what an identity is made of."""
    yield lambda: get_user_model().objects.get().save()
    yield lambda: get_user_model().objects.get().delete()
    yield lambda: Session.objects.get().save()
    yield lambda: Session.objects.get().delete()
    yield lambda: Session.objects.all().delete()
    yield lambda: Socket.objects.get().save()
    yield lambda: Socket.objects.get().delete()
    yield lambda: Socket.objects.all().delete()
    yield lambda: Socket.objects.get().remove()
    yield lambda: Socket.objects.all().remove()
    yield lambda: Socket.objects.all().revoke()
    yield lambda: get_user_model().objects.get().groups.add(Group.objects.get())
    yield lambda: get_user_model().objects.get().user_permissions.set(Permission.objects.all()[:1])
    yield lambda: Group.objects.get().permissions.add(Permission.objects.first())
    yield lambda: Group.objects.get().user_set.add(get_user_model().objects.get())
    yield lambda: Group.objects.get().delete()


@pytest.mark.parametrize('write', list(writes()))
def test_what_this_process_writes_is_dropped_at_once_and_again_when_it_is_committed(keep, row, identities, write):
    Group.objects.create(name='staff')
    memory, before = keep(), row()
    assert identities.find(memory) is not None and len(identities) == 1
    with transaction.atomic():
        write()
        assert memory.identity is None and len(identities) == 0
        # As another thread may, which does not see yet what was written here.
        assert identities.keep(memory, before, identities.begin()) is not None
    assert memory.identity is None and len(identities) == 0 and identities._by_key == {}


def test_what_was_written_while_it_was_read_is_not_kept(identities, row, alice):
    memory, reading, before = Memory(0), identities.begin(), row()
    alice.save()
    assert identities.keep(memory, before, reading) is None and memory.identity is None
    assert identities.keep(memory, row(), identities.begin()) is memory.identity is not None
    # What others write is none of its business.
    reading, before = identities.begin(), row()
    get_user_model().objects.create_user('bob')
    assert identities.keep(memory, before, reading) is memory.identity is not None
    assert identities._readings == set()


def test_what_was_forgotten_while_another_connection_read_it_is_not_kept(identities, row):
    # Whose right is in doubt is read again: it found what had been read before the doubt.
    memory, new = Memory(0), memories.get('daphne.response.a!1')
    identities.expect(new, 'daphne.response.a!1')
    reading = identities.begin()
    others = identities.companions(memory, ('handshake',))
    assert others == {'daphne.response.a!1': (new, None)}
    before = row()
    identities.forget(new)
    identities.keep(memory, None, reading, (), [(new, None, before)])
    assert new.identity is None and len(identities) == 0 and identities._readings == set()


def test_an_identity_is_as_old_as_the_moment_before_it_was_read(identities, row, settings, monkeypatch):
    memory, reading = Memory(0), identities.begin()
    now = [reading.since]
    monkeypatch.setattr(identity_cache.time, 'monotonic', lambda: now[0])
    now[0] += 0.9
    identities.keep(memory, row(), reading)
    assert identities.find(memory) is not None
    now[0] += 0.2
    assert identities.find(memory) is None
    settings.SOCKETS = {'IDENTITY_MAX_AGE': 5}
    assert identities.find(memory) is not None
    settings.SOCKETS = {'IDENTITY_MAX_AGE': 0}
    assert identities.find(memory) is None and identities.keep(memory, row(), identities.begin()) is None


def test_connections_that_say_nothing_keep_no_identity(keep, identities, monkeypatch):
    memory = keep()
    identities.sweep()
    assert len(identities) == 1
    later = memory.identity.since + 3.5
    monkeypatch.setattr(identity_cache.time, 'monotonic', lambda: later)
    # It looks every second.
    presence.Housekeeper().look()
    assert memory.identity is None and len(identities) == 0 and identities._by_key == {}


def test_a_transaction_that_writes_many_rows_drops_them_together(identities, keep, alice):
    keep()
    with transaction.atomic():
        for _ in range(100):
            alice.save()
        assert len(connection.run_on_commit) == 1
        with pytest.raises(KeyError), transaction.atomic():
            alice.save()
            raise KeyError
        # What is rolled back takes its note along.
        assert len(connection.run_on_commit) == 1
        alice.save()
    with transaction.atomic(), transaction.atomic():
        alice.save()
        assert len(connection.run_on_commit) == 1


def test_a_process_that_keeps_nothing_notes_nothing(alice, monkeypatch):
    monkeypatch.setattr(identity_cache, 'cache', IdentityCache())
    with transaction.atomic():
        alice.save()
        assert connection.run_on_commit == []


def test_what_is_read_in_a_transaction_is_told_apart(db):
    assert not identity_cache.is_in_transaction('default')
    with transaction.atomic():
        assert identity_cache.is_in_transaction('default')
    transaction.set_autocommit(False)
    try:
        assert identity_cache.is_in_transaction('default')
    finally:
        transaction.set_autocommit(True)


def test_each_frame_gets_copies_of_its_own(keep, row, identities):
    kept = keep().identity
    user = kept.user()
    first, second = kept.row(user), kept.row(kept.user())
    assert first == second == row() and first is not second and first.user is user is not second.user
    assert vars(first).keys() == vars(second).keys() and 'handshake' in first.get_deferred_fields()
    user.username = first.path = 'changed'
    assert (kept.user().username, kept.row(user).path) == ('alice', '/')
    assert not user._state.adding and user._state.db == 'default'
    first.path = '/'
    first.save()
    assert Socket.objects.get().path == '/'


def test_an_anonymous_connection_has_an_anonymous_user(identities, db):
    Socket.objects.create(channel_name='a!1', path='/')
    memory = Memory(0)
    kept = identities.keep(memory, read(), identities.begin())
    user = kept.user()
    assert not user.is_authenticated and kept.row(user).user is None and not kept.has_expired()


def test_permissions_that_were_read_are_kept_with_the_user(keep, alice, django_assert_num_queries):
    alice.user_permissions.add(Permission.objects.get(codename='delete_socket'))
    kept = keep().identity
    user = kept.user()
    assert user.has_perm('sockets.delete_socket') and not user.has_perm('sockets.add_socket')
    kept.note_permissions(user)
    user._perm_cache.add('sockets.add_socket')
    raised = kept.user()
    raised.is_superuser = True
    raised._perm_cache = {'sockets.add_socket'}
    del raised._user_perm_cache
    kept.note_permissions(raised)
    with django_assert_num_queries(0):
        other = kept.user()
        assert other.has_perm('sockets.delete_socket') and not other.has_perm('sockets.add_socket')


def test_a_session_that_is_over_shows(keep, identities):
    assert not keep().identity.has_expired()
    Session.objects.update(expire_date=timezone.now())
    assert keep().identity.has_expired()


def test_parents_children_and_proxies_are_found_under_the_same_name(alice):
    from django.contrib.auth.models import AbstractUser

    proxy = type(
        'Proxy',
        (get_user_model(),),
        {'__module__': __name__, 'Meta': type('Meta', (), {'proxy': True, 'app_label': 'identity'})},
    )
    child = type(
        'Child', (get_user_model(),), {'__module__': __name__, 'Meta': type('Meta', (), {'app_label': 'identity'})}
    )
    assert issubclass(proxy, AbstractUser)
    name = ('auth.User', alice.pk)
    assert identity_entries.keys_of(alice) == identity_entries.keys_of(proxy(pk=alice.pk)) == [name]
    assert identity_entries.keys_of(proxy(pk=str(alice.pk))) == [name]
    assert set(identity_entries.keys_of(child(id=alice.pk, user_ptr_id=alice.pk))) == {
        name,
        ('identity.Child', alice.pk),
    }


def test_threads_that_read_and_write_leave_nothing_behind(keep, identities, row):
    kept = row()
    memories = [Memory(0) for _ in range(4)]
    stop = threading.Event()

    def read_all_the_time():
        while not stop.is_set():
            for memory in memories:
                identities.keep(memory, kept, identities.begin())
                identities.find(memory)

    threads = [threading.Thread(target=read_all_the_time) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2000):
        identities.drop([('auth.User', kept.user_id)])
    stop.set()
    for thread in threads:
        thread.join()
    for memory in memories:
        identities.forget(memory)
    assert len(identities) == 0 and identities._by_key == {} and identities._readings == set()
