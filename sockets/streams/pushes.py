"""What followers are sent: the messages of a stream, and where it stands."""

import json
import logging
import time

from django.conf import settings
from django.db.models.functions import Now

from .. import callbacks, fanout, messages
from ..engine import server_of
from ..models import Socket
from ..models.ends import in_seconds
from ..models.queryset import check_declared
from .positions import position_of
from .tables import database, heads, lock, short_transaction

logger = logging.getLogger('sockets')

# Streams whose followers are reminded together, and for how many seconds one look does so.
STREAMS, SECONDS = 100, 0.5

# The servers that have taken nothing for SEND_TIMEOUT. Who waits for them again delays the messages of all other streams.
_stuck = set()


def kept_text(name, epoch, message):
    """Return the text of a frame with ``message`` of the stream ``name``."""
    kept = json.dumps({'stream': name, 'epoch': epoch, 'offset': message.offset}, separators=(',', ':'))
    body = message.text[:-1]
    return f'{body}{"" if body == "{" else ","}"{messages.KEPT}":{kept}}}'


def wrapped(text, envelope):
    """Return ``text`` in ``envelope``: the names of streams of demultiplexers, as JSON, or ``None``."""
    for name in reversed(json.loads(envelope) if envelope else ()):
        text = f'{{"{messages.STREAM}":{json.dumps(name)},"{messages.PAYLOAD}":{text}}}'
    return text


def followers(*keys):
    """Return, by the keys of streams that have any, the names of followers by the envelopes in which they follow."""
    rows = Socket.objects.using(database()).filter(memberships__stream__in=keys)
    found = {}
    for key, name, envelope in rows.order_by().values_list(
        'memberships__stream', 'channel_name', 'memberships__envelope'
    ):
        found.setdefault(key, {}).setdefault(envelope, []).append(name)
    return found


def push(stream, epoch, numbered, names):
    """Send ``numbered`` messages to the followers ``names`` of ``stream``. Who gets none is told where it stands."""
    if settings.DEBUG and names:
        _check_declared(stream, numbered)
    for message in numbered:
        send(names, kept_text(stream.name, epoch, message))
    callbacks.purge_if_due()


def send(names, text):
    """Send ``text`` to the connections ``names``, by envelope; return whether the layer has taken all of it.

    One that is away loses nothing that is kept. What a server that hangs does not take is dropped, for the same reason.
    """
    is_sent = True
    if len(_stuck) > 100:
        # Most of them have ended.
        _stuck.clear()
    for envelope, those in names.items():
        try:
            fanout.send_many(_reached(those), {'text': wrapped(text, envelope)}, _stuck)
        except Exception as error:
            is_sent = False
            logger.warning(
                'A message of a stream did not reach %d connections, which will ask for it: %s: %s',
                len(those),
                type(error).__name__,
                error,
            )
    return is_sent


def _reached(names):
    """Return those of ``names`` to which this process can send. The others get it when their own server reminds them."""
    away = fanout.unreachable(names)
    if not away:
        return names
    logger.info('Followers of another process get a message of a stream later, from it: %s', ', '.join(sorted(away)))
    return [name for name in names if server_of(name) not in away]


def following_text(name, head, since=None, is_again=False):
    """Return the text of the frame that says where the stream ``name`` stands.

    With ``since``, a client begins there that has had nothing of it; ``is_again`` says nothing about where to begin.
    """
    content = {messages.TYPE: messages.FOLLOWING, **position_of(name, head)}
    if is_again:
        content['again'] = True
    if since is not None:
        content['since'] = {'epoch': since['epoch'], 'offset': since['offset']}
    return messages.encode(content)


def remind(remind_after):
    """Tell the followers of streams that have not moved lately where these stand: the last message may have been lost.

    ``remind_after`` are the seconds between two times. It is done for ``STREAMS`` at once, and for as many as time allows.
    """
    end = time.monotonic() + SECONDS
    is_left = True
    while is_left and time.monotonic() < end:
        due = list(heads().to_remind().order_by('remind_at')[:STREAMS])
        # Before it is noted: what fails here is tried again.
        names = followers(*[head.key for head in due]) if due else {}
        noted = _note_reminded(due, remind_after)
        is_left = bool(noted) and len(due) == STREAMS
        _remind(noted, names, remind_after, end)


def _remind(noted, names, remind_after, end):
    unsent = []
    for number, head in enumerate(noted):
        if number and time.monotonic() > end:
            _take_back(noted[number:], Now())
            break
        if not send(names.get(head.key, {}), following_text(head.name, head, is_again=True)):
            unsent.append(head)
    # The layer is away: this time does not count, however long that lasts.
    _take_back(unsent, in_seconds(remind_after[-1]))


def _note_reminded(due, remind_after):
    """Note that ``due`` are told once more; return those that have not moved, and that no other has told or locked."""

    def changes(times):
        return times + 1, in_seconds(remind_after[times + 1]) if times + 1 < len(remind_after) else None

    return _change_reminders(due, changes)


def _take_back(noted, remind_at):
    """Note that ``noted`` were not told after all, and are at ``remind_at``."""
    for head in noted:
        head.reminders += 1
    _change_reminders(noted, lambda times: (times - 1, remind_at))


def _change_reminders(those, changes):
    """Set what ``changes`` returns for how often streams were told; return those that are as they are in ``those``."""
    using, found, by_times = database(), [], {}
    if not those:
        return found
    with short_transaction(using):
        locked = lock([head.key for head in those], using)
        for head in those:
            now = locked.get(head.key)
            if now and (now.epoch, now.offset, now.reminders) == (head.epoch, head.offset, head.reminders):
                found.append(head)
                by_times.setdefault(head.reminders, []).append(head.key)
        for was, keys in by_times.items():
            times, remind_at = changes(was)
            heads().filter(pk__in=keys).update(reminders=times, remind_at=remind_at)
    return found


def _check_declared(stream, numbered):
    paths = set(Socket.objects.using(database()).filter(memberships__stream=stream.key).values_list('path', flat=True))
    for message in numbered:
        check_declared(paths, json.loads(message.text))
