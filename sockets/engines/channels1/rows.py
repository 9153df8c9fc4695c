"""The rows of one server: asked of the database, or of a worker where this process has no database."""

import logging
import time

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections, router
from django.utils import timezone

from ... import databases
from ...models import Socket
from . import delivery, questions

logger = logging.getLogger('sockets')

# Where workers are asked.
CHANNEL = 'sockets.rows'

# Seconds that a worker may take to answer.
PATIENCE = 5

# Seconds after which a process that could not reach the database tries it again.
TRY_AGAIN_AFTER = 60


def count(server):
    """Return how many rows ``server`` has."""
    return _of(server).count()


def paths(server):
    """Return a dict of the names and paths of all connections that have a row of ``server``."""
    return dict(_of(server).order_by().values_list('channel_name', 'path'))


def among(server, names):
    """Return which of ``names`` have a row, as a list."""
    return [
        name
        for part in databases.parts(names)
        for name in _of(server).filter(channel_name__in=part).values_list('channel_name', flat=True)
    ]


def note_life(server):
    """Note in the rows of ``server`` that it lives."""
    return _of(server).update(modified=timezone.now())


def _of(server):
    # A replica may lag behind.
    return Socket.objects.on_primary().filter(server=server)


_QUESTIONS = {function.__name__: function for function in (count, paths, among, note_life)}


class Rows:
    """The rows of ``server``, for the process that holds its connections."""

    def __init__(self, server):
        self.server = server
        self.next_try = 0

    def ask(self, question, *args):
        """Return what ``count``, ``paths``, ``among`` or ``note_life`` says; raise if neither the database nor a worker
        answers.
        """
        if time.monotonic() >= self.next_try:
            try:
                return _QUESTIONS[question](self.server, *args)
            except (Error, ImproperlyConfigured) as error:
                connections[router.db_for_write(Socket)].close()
                if not questions.has_other_workers():
                    raise
                logger.warning(
                    'The rows of this server are asked of the workers, because the database cannot be '
                    'reached from here: %s: %s',
                    type(error).__name__,
                    error,
                )
                self.next_try = time.monotonic() + TRY_AGAIN_AFTER
        answer = questions.ask_worker(CHANNEL, PATIENCE, question=question, server=self.server, args=list(args))
        if answer is None:
            raise TimeoutError(f'no worker has answered within {PATIENCE} s')
        return answer['answer']


def answer(message):
    """What a worker does with the question of a server that has no database."""
    found = _QUESTIONS[message['question']](message['server'], *message['args'])
    delivery.send(message.channel_layer, message.reply_channel.name, {'answer': found})
