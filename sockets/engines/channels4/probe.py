"""What ``manage.py sockets doctor`` finds out about the channel layer and the servers on it."""

from ... import engine
from ...models import Server, Socket
from ...operations.findings import Finding
from . import layer, questions

# Servers that one line names.
_NAMED = 10


def examine_layer(patience):
    """Send a message through the layer and receive it."""
    found, remedies = layer.channel_layer(), engine.current().remedies
    if found is None:
        return [Finding('layer', None, 'There is none: other processes are not reached.', remedies['reach'] + '.')]
    # The first time, it connects.
    for _ in range(2):
        seconds = questions.round_trip(patience / 2)
        if seconds is None:
            return [Finding('layer', False, 'It takes messages and gives none back.', remedies['layer'])]
    text = f'{type(found).__name__} answers in {1000 * seconds:.1f} ms.'
    for info in questions.of_redis():
        text += ' Redis {}.'.format(info['redis_version'])
        if info.get('maxmemory') and info.get('maxmemory_policy') != 'noeviction':
            text += ' When it is full, it throws messages away ({}).'.format(info['maxmemory_policy'])
            return [Finding('layer', False, text, 'Type: redis-cli config set maxmemory-policy noeviction')]
    return [Finding('layer', True, text)]


def examine_servers(patience):
    """Ask each server that has not been found dead how it is, over the layer."""
    if layer.is_local():
        return [Finding('worker', None, 'Nobody to ask: without a layer between processes, each reaches itself only.')]
    servers = sorted(beating())
    if not servers:
        return [Finding('worker', None, 'Nobody to ask: no server is running.', engine.current().remedies['serve'])]
    answers = questions.ask(servers, patience)
    found = []
    if answers:
        lines = [
            'process {process} on {host} in {ms:.1f} ms'.format(ms=1000 * answers[name]['seconds'], **answers[name])
            for name in servers
            if name in answers
        ]
        more = f', and {len(lines) - _NAMED} more' if len(lines) > _NAMED else ''
        found.append(Finding('worker', True, 'Over the layer answers {}{}.'.format('; '.join(lines[:_NAMED]), more)))
    silent = [name for name in servers if name not in answers]
    if silent:
        more = f' and {len(silent) - _NAMED} more' if len(silent) > _NAMED else ''
        text = 'No answer within {} s from {}{}.'.format(patience, ', '.join(silent[:_NAMED]), more)
        found.append(
            Finding(
                'worker',
                False,
                text,
                'It has just been killed, hangs, or uses another Redis or prefix than this process: compare CHANNEL_LAYERS.',
            )
        )
    return found


def statistics(patience):
    """Return what waits in the servers, and what they have dropped, as ``Engine.statistics``."""
    waiting, dropped = {}, {}
    servers = [] if layer.is_local() else list(beating())
    for name, found in questions.ask(servers, patience).items() if servers else ():
        if found['waiting']:
            waiting[name] = found['waiting']
        for server, count in found['dropped'].items():
            dropped[server] = dropped.get(server, 0) + count
    return {'waiting': waiting, 'dropped': dropped}


def beating():
    """Return the names of the servers that have not been found dead."""
    return Server.objects.using(Socket.objects.on_primary().db).exclude(beats=None).values_list('name', flat=True)
