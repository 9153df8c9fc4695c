"""Rows, asked of the database and of workers."""

import pytest
from django.db import OperationalError

from sockets import RoutedSocketHandler
from sockets.engines.channels1 import questions, rows
from sockets.engines.channels1.sandbox import SERVER
from sockets.testing import work

from .conftest import OUR_LAYERS

pytestmark = pytest.mark.django_db(transaction=True)


def answers(ask, name):
    return ask('count'), ask('paths'), ask('among', [name, SERVER + 'gone'])


@pytest.fixture
def other_workers(monkeypatch):
    """Workers that have the database which this process has not."""

    def away(*args):
        raise OperationalError('away')

    def waiting(layer, name, seconds):
        # A worker has its own.
        with monkeypatch.context() as patch:
            patch.setattr(rows, '_QUESTIONS', answers_of)
            work()
        return layer.receive([name])[1]

    answers_of = dict(rows._QUESTIONS)
    monkeypatch.setattr(rows, '_QUESTIONS', dict.fromkeys(answers_of, away))
    monkeypatch.setattr(questions, '_wait_for', waiting)


@pytest.mark.parametrize('layer', [OUR_LAYERS[1], 'asgi_redis.RedisChannelLayer'], indirect=True)
def test_workers_say_what_the_database_would(connect, layer, request, caplog):
    name = connect(RoutedSocketHandler).name
    ask = rows.Rows(SERVER).ask
    told = answers(ask, name)
    assert told == (1, {name: '/page/'}, [name])
    request.getfixturevalue('other_workers')
    assert answers(ask, name) == told
    # Once a minute.
    assert (
        caplog.text.count(
            'are asked of the workers, because the database cannot be reached from here: OperationalError: away'
        )
        == 1
    )


@pytest.mark.parametrize('layer', [OUR_LAYERS[1]], indirect=True)
def test_where_no_worker_answers_the_rows_are_not_known(layer, other_workers, monkeypatch):
    monkeypatch.setattr(questions, '_wait_for', lambda *args: None)
    with pytest.raises(TimeoutError, match='no worker has answered within 5 s'):
        rows.Rows(SERVER).ask('count')


@pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)
def test_a_server_with_workers_of_its_own_asks_nobody_else(layer, other_workers):
    with pytest.raises(OperationalError, match='away'):
        rows.Rows(SERVER).ask('count')
