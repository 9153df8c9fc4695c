"""The site of the tests of streams: a page that follows what its path says, and writers: ``python -m`` runs some.

``DROP`` is a file with the share of pushes that get lost on their way to a connection.
"""

import os
import random
import sys
import threading
import time
from pathlib import Path

from tests.live import stack
from tests.live.soak_site import *  # noqa: F403
from tests.live.soak_site import SOCKETS as OF_THE_FLEETS

CHANNEL_LAYERS = stack.channel_layers(
    'tests.live.streams_chaos_site.routing',
    os.environ.get('REDIS_URL', ''),
    prefix=os.environ.get('PREFIX', 'sockets:'),
)
SOCKETS = {**OF_THE_FLEETS, **stack.routed('tests.live.streams_chaos_site.routing')}

# The stream that keeps little, and the one that is cleared.
SHORT, KEPT_OF_SHORT, CLEARED = 'short', 40, 'cleared'
# Those that a client is to have from the first message.
WHOLE = ('s0', 's1', 's2', 's3', 's4', 's5')

_dice = random.Random()
_share = [0, 0]


def share_that_is_lost():
    """Return what the file ``DROP`` says, read twice a second."""
    now = time.monotonic()
    if 'DROP' in os.environ and now > _share[0]:
        _share[:] = now + 0.5, float(Path(os.environ['DROP']).read_text() or 0)
    return _share[1]


def lose_some():
    """Have pushes get lost, each for some of the connections that it is for. Answers are not."""
    from sockets import fanout

    hand_over = fanout.hand_over

    def lossy(way, names, message, *args):
        text = message.get('text') or ''
        if ('"kept"' in text or '"FOLLOWING"' in text) and '"RESUMED"' not in text:
            share = share_that_is_lost()
            names = [name for name in names if _dice.random() >= share]
        return hand_over(way, names, message, *args) if names else 0

    fanout.hand_over = lossy


def write(number, names):
    """Write into ``names`` until told to stop, in transactions of one to three messages, of which a fifth roll back."""
    from django.db import Error, close_old_connections, connection, transaction

    from sockets.streams import Stream

    class Regret(Exception):
        pass

    dice, n, pace = random.Random(number), 0, float(os.environ.get('PACE', 0.3))
    while not Path(os.environ['STOP']).exists():
        close_old_connections()
        try:
            with transaction.atomic():
                is_regretted = dice.random() < 0.2
                for _ in range(dice.randint(1, 3)):
                    name, n = dice.choice(names), n + 1
                    stream = Stream(name, max_messages=KEPT_OF_SHORT if name == SHORT else None)
                    stream.send_json({'type': 'SAID', 'by': number, 'n': n, 'regretted': is_regretted})
                    time.sleep(dice.random() * 0.02)
                if is_regretted:
                    raise Regret()
            if number == 0 and dice.random() < 0.05:
                Stream(CLEARED).clear()
        except Regret:
            pass
        except Error:
            # What a page does: its user gets an error, and tries again.
            connection.close()
            time.sleep(0.5)
        time.sleep(pace * 2 * dice.random())


def main():
    import django

    django.setup()
    lose_some()
    first, count, *names = sys.argv[1:]
    threads = [threading.Thread(target=write, args=(int(first) + n, names)) for n in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What they have handed to other threads ends first.
    time.sleep(2)


def __getattr__(name):
    if name == 'routing':
        from sockets import SocketRouter
        from sockets.routing import route_class

        lose_some()
        socket = SocketRouter()

        @socket.connect
        def on_open(socket, names):
            for name in names.split('.'):
                socket.follow(name, since={'epoch': '', 'offset': 0} if name in WHOLE else None)

        # Asked for more than once.
        globals()[name] = [route_class(socket.Handler, path=r'^/streams/(?P<names>[\w.]+)/$')]
        return globals()[name]
    raise AttributeError(name)


if __name__ == '__main__':
    main()
