import pytest
from django.contrib.auth import get_user_model

from sockets import RoutedSocketHandler
from sockets.models import Socket


@pytest.fixture
def staff(client, db):
    client.force_login(get_user_model().objects.create_superuser('admin', 'admin@example.com', 'x'))
    return client


@pytest.fixture
def sockets(alice):
    for n in range(20):
        Socket.objects.create(channel_name='daphne.response.a!{}'.format(n), path='/page/{}/'.format(n), user=alice,
                              user_ip='192.0.2.{}'.format(n), active=n % 2)


def test_connections_are_listed_at_a_number_of_queries_that_does_not_grow(
        staff, sockets, django_assert_max_num_queries):
    with django_assert_max_num_queries(8):
        response = staff.get('/admin/sockets/socket/')
    assert response.status_code == 200
    assert b'/page/7/' in response.content and b'192.0.2.7' in response.content and b'alice' in response.content


@pytest.mark.parametrize('query, found', [
    ('q=/page/7/', 1), ('q=alice', 20), ('q=192.0.2.19', 1), ('q=a!3', 1), ('q=nobody', 0), ('active__exact=1', 10)])
def test_connections_are_searched_and_filtered(staff, sockets, query, found):
    response = staff.get('/admin/sockets/socket/?' + query)
    assert response.context['cl'].result_count == found


def test_connections_can_be_read_and_not_made_or_changed(staff, sockets):
    row = Socket.objects.first()
    response = staff.get('/admin/sockets/socket/{}/change/'.format(row.pk))
    assert row.channel_name.encode() in response.content
    staff.post('/admin/sockets/socket/{}/change/'.format(row.pk), {'path': '/other/'})
    row.refresh_from_db()
    assert row.path != '/other/'
    assert staff.get('/admin/sockets/socket/add/').status_code == 403


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize('may_delete', [True, False])
def test_selected_connections_are_revoked_by_those_who_may_delete_them(client, connect, alice, may_delete):
    from django.contrib.auth.models import Permission
    connection, other = connect(RoutedSocketHandler), connect(RoutedSocketHandler)
    connection.messages(), other.messages()
    alice.is_staff = True
    alice.save()
    alice.user_permissions.set(Permission.objects.filter(codename__in=['view_socket', 'change_socket'] + [
        'delete_socket'] * may_delete))
    client.force_login(alice)
    response = client.post('/admin/sockets/socket/', {
        'action': 'revoke', '_selected_action': [Socket.objects.get(channel_name=connection.name).pk]}, follow=True)
    assert response.status_code == 200
    told = connection.messages()
    assert [message['close'] for message in told] == [4401] * may_delete
    assert (b'Closed 1 connections' in response.content) == may_delete
    assert other.messages() == [] and Socket.objects.count() == 2 - may_delete
