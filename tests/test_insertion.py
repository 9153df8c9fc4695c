"""Rows that are inserted together, on each database and with each Django."""

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from sockets.models import Socket, insertion
from sockets.models.insertion import Insertion

pytestmark = pytest.mark.django_db


def insertions(count):
    return [Insertion(Socket(channel_name=f'server!{number}', path='/')) for number in range(count)]


@pytest.mark.parametrize('returns', [True, False])
def test_each_row_is_as_if_it_had_been_saved(returns, monkeypatch):
    # Not all databases return the keys of several rows.
    for name in ('can_return_ids_from_bulk_insert', 'can_return_rows_from_bulk_insert'):
        if not returns and hasattr(connection.features, name):
            monkeypatch.setattr(type(connection.features), name, False)
    found = insertions(3)
    with CaptureQueriesContext(connection) as context:
        insertion.insert(found)
    assert len([query for query in context.captured_queries if query['sql'].startswith('INSERT')]) == 1
    rows = [each.finish() for each in found]
    saved = Socket(channel_name='server!saved', path='/')
    saved.save()
    for row in rows:
        assert row == Socket.objects.get(channel_name=row.channel_name)
        assert vars(row).keys() == vars(saved).keys()
        assert (row._state.adding, row._state.db) == (saved._state.adding, saved._state.db)
        assert (row.server, row.layer, row.active, row.has_arrived) == ('server!', saved.layer, True, None)
        row.path = '/other/'
        row.save()
    assert Socket.objects.filter(path='/other/').count() == 3


def test_nothing_is_inserted_twice():
    found = insertions(3)
    insertion.insert(found[:2])
    insertion.insert(found)
    assert len({each.finish().pk for each in found}) == 3
    # What nobody has inserted yet is inserted when it is needed.
    late = Insertion(Socket(channel_name='server!late', path='/'))
    assert late.finish().pk and Socket.objects.count() == 4


def test_a_name_that_is_taken_fails_alone_and_leaves_the_transaction_usable():
    Socket(channel_name='server!1', path='/').save()
    found = insertions(3)
    with transaction.atomic():
        insertion.insert(found)
        for each in found[::2]:
            assert each.finish().pk
        with pytest.raises(IntegrityError):
            found[1].finish()
    assert found[1].row.pk is None and Socket.objects.count() == 3


def test_what_was_inserted_can_be_withdrawn():
    found = insertions(2)
    found[0].withdraw()
    insertion.insert(found)
    found[0].withdraw()
    assert Socket.objects.get().channel_name == 'server!1'


def test_as_many_as_are_opened_together_fit_into_few_statements():
    found = insertions(64)
    with CaptureQueriesContext(connection) as context:
        insertion.insert(found)
    # SQLite knew no more than 999 values.
    assert len([query for query in context.captured_queries if query['sql'].startswith('INSERT')]) <= 2
    assert Socket.objects.count() == 64
