import django
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext

from sockets.models import Socket, StreamHead, StreamMessage
from sockets.streams import Stream

from .test_admin import act, layer, make_rows, notices, staff  # noqa: F401
from .test_streams import client as follower  # noqa: F401

LIST = '/admin/sockets/streamhead/'

pytestmark = pytest.mark.django_db(transaction=True)


def page_of(browser, name):
    head = StreamHead.objects.get(name=name)
    return browser.get(f'{LIST}{head.pk}/change/').content.decode()


def test_streams_are_listed_with_what_they_keep_and_who_follows(staff, follower):  # noqa: F811
    follower.send('FOLLOW', name='room:tea')
    for _ in range(3):
        Stream('room:tea').send_json({'type': 'SAID'})
    Stream('room:empty').send_json({'type': 'SAID'})
    page = staff.get(LIST).content.decode()
    assert page.count('name="_selected_action"') == 2 and '>0 s ago<' in page
    rows = {name: page.split(f'>{name}</a>')[1].split('</tr>')[0] for name in ('room:tea', 'room:empty')}
    for name, kept, followers in (('room:tea', 3, 1), ('room:empty', 1, 0)):
        assert f'field-kept">{kept}<' in rows[name] and f'field-followers">{followers}<' in rows[name]
    page = page_of(staff, 'room:tea')
    assert 'name="_save"' not in page and '>1<' in page


def test_streams_are_listed_at_a_number_of_queries_that_does_not_grow(staff):  # noqa: F811
    counts = []
    for size in (20, 90):
        for n in range(size):
            StreamHead.objects.get_or_create(pk=f'{n:064}', name=f'room:{n}', epoch='e')
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(LIST).content.count(b'name="_selected_action"') == size
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6
    assert staff.get(LIST + '?q=ROOM:8').content.count(b'name="_selected_action"') == 11


def test_streams_are_cleared_and_their_numbers_go_on(staff, layer):  # noqa: F811
    for name in ('room:tea', 'room:tea', 'room:other'):
        Stream(name).send_json({'type': 'SAID'})
    heads = StreamHead.objects.filter(name='room:tea')
    first = staff.post(LIST, {'action': 'clear', '_selected_action': [heads.get().pk], 'index': 0})
    assert 'This removes all 2 messages of 1 stream.' in first.content.decode()
    assert StreamMessage.objects.count() == 3
    response = act(staff, 'clear', heads, LIST)
    assert notices(response) == ['Cleared 1 stream.'] and LogEntry.objects.get().object_repr == 'Clear: 1 stream'
    assert Stream('room:tea').history() == [] and len(Stream('room:other').history()) == 1
    Stream('room:tea').send_json({'type': 'SAID'})
    assert Stream('room:tea').position()['offset'] == 3


def test_a_stream_whose_name_no_database_holds_is_cleared_as_well(staff, layer):  # noqa: F811
    Stream('a\0b').send_json({'type': 'SAID'})
    assert notices(act(staff, 'clear', StreamHead.objects.all(), LIST)) == ['Cleared 1 stream.']
    assert Stream('a\0b').history() == []


def test_only_who_may_clear_does_and_nobody_makes_changes_or_deletes_streams(client, layer):  # noqa: F811
    Stream('room:tea').send_json({'type': 'SAID'})
    head = StreamHead.objects.get()
    user = get_user_model().objects.create_user('helper', is_staff=True)
    look = Permission.objects.get(codename='view_streamhead' if django.VERSION >= (2, 1) else 'change_streamhead')
    others = Permission.objects.filter(codename__in=['delete_streamhead', 'close_socket'])
    user.user_permissions.set([look, *others])
    client.force_login(user)
    assert 'value="clear"' not in client.get(LIST).content.decode()
    client.post(LIST, {'action': 'clear', '_selected_action': head.pk, 'confirmed': 'yes'})
    assert len(Stream('room:tea').history()) == 1 and not LogEntry.objects.exists()
    user.user_permissions.add(Permission.objects.get(codename='clear_streamhead'))
    page = client.get(LIST).content.decode()
    assert 'value="clear"' in page and 'delete_selected' not in page
    act(client, 'clear', [head], LIST)
    assert Stream('room:tea').history() == []
    # Numbers would begin anew, beside messages that have them.
    assert client.post(f'{LIST}{head.pk}/delete/', {'post': 'yes'}).status_code == 403
    assert client.get(LIST + 'add/').status_code == 403
    assert client.post(f'{LIST}{head.pk}/change/', {'name': 'x'}).status_code == 403


@pytest.mark.parametrize('query', ['?q=%00', '?e=1&q=a%00b'])
def test_a_nul_is_no_question_to_a_database(staff, query):  # noqa: F811
    assert staff.get(LIST + query).status_code == 302


def test_what_a_project_adds_to_the_actions_on_connections_needs_no_permission_of_ours(staff, layer, monkeypatch):  # noqa: F811
    from sockets.admin import SocketAdmin

    make_rows(1)

    def wave(admin, request, queryset):
        queryset.update(active=False)

    monkeypatch.setattr(SocketAdmin, 'actions', [*SocketAdmin.actions, wave])
    assert 'value="wave"' in staff.get('/admin/sockets/socket/').content.decode()
    staff.post('/admin/sockets/socket/', {'action': 'wave', '_selected_action': Socket.objects.get().pk})
    assert not Socket.objects.get().active
