"""Who may import whom: the arrows of the design."""
import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'sockets'

# What a module may import when it is imported, of ours and of the stack below.
AT_IMPORT = {
    '__init__': {'router'},
    'admin': {'ages', 'conf', 'exceptions', 'messages', 'models', 'revocation', 'transport'},
    'ages': set(),
    'apps': {'compat'},
    'arguments': set(),
    'audit': {'messages', 'rows', 'thread_state', 'transport'},
    'auth': {'exceptions'},
    'background': set(),
    'checks': {'arguments', 'conf', 'router', 'routes', 'security', 'view_checks'},
    'compat': set(),
    'conf': set(),
    'contracts': {'coroutines', 'exceptions', 'forms', 'messages', 'refusals', 'schemas'},
    'coroutines': set(),
    'credentials': {'conf'},
    'databases': set(),
    'description': {'conf', 'handlers', 'messages', 'multiplexing', 'routes', 'schemas', 'transport'},
    'doctor': {'messages', 'models', 'presence', 'transport'},
    'envelopes': {'exceptions', 'messages'},
    'exceptions': set(),
    'expiry': {'databases', 'models'},
    'farewell': set(),
    'forms': {'coroutines'},
    'frames': set(),
    'guards': {'coroutines', 'exceptions', 'routes'},
    'handlers': {'conf', 'contracts', 'coroutines', 'databases', 'envelopes', 'exceptions', 'limits', 'messages',
                 'middleware', 'options', 'overrides', 'refusals', 'routes', 'security', 'transport', 'visitors'},
    'handshake': set(),
    'limits': {'conf', 'exceptions', 'messages', 'rates', 'transport'},
    'messages': {'exceptions'},
    'middleware': {'coroutines'},
    'models': {'databases', 'messages', 'signals', 'transport'},
    'multiplexing': {'exceptions', 'handlers', 'messages', 'refusals', 'transport'},
    'options': {'conf', 'routes'},
    'overrides': {'coroutines'},
    'overtime': {'conf', 'messages'},
    'page_consumers': {'channels', 'pages', 'thread_state'},
    'pages': {'conf', 'daphne', 'twisted'},
    'presence': {'auth', 'background', 'conf', 'models', 'thread_state', 'transport'},
    'protocol': {'audit', 'conf', 'credentials', 'daphne', 'frames', 'handshake', 'transport', 'twisted'},
    'pytest_plugin': set(),
    'rates': set(),
    'refusals': {'exceptions', 'messages'},
    'revocation': {'auth', 'databases', 'expiry', 'models'},
    'router': {'routes'},
    'routes': {'coroutines', 'forms', 'rates'},
    'rows': {'databases', 'models', 'transport'},
    'schemas': set(),
    'security': {'conf'},
    'server': {'channels', 'daphne', 'farewell', 'layers', 'overtime', 'presence', 'workers'},
    'signals': {'coroutines'},
    'testing': {'channels', 'conf', 'credentials', 'envelopes', 'layers', 'messages', 'models', 'presence',
                'thread_state', 'transport'},
    'thread_state': {'signals'},
    'transport': {'background', 'channels', 'conf', 'credentials', 'envelopes', 'exceptions', 'layers', 'overtime',
                  'rates', 'signals', 'thread_state'},
    'view_checks': {'guards'},
    'visitors': {'rates'},
    'workers': {'channels', 'farewell', 'overtime', 'presence'},
}
# What its functions may import besides, when the apps are loaded.
IN_FUNCTIONS = {
    '__init__': {'handlers'},
    'apps': {'arguments', 'checks', 'farewell', 'protocol', 'revocation', 'router', 'rows', 'transport', 'workers'},
    'audit': {'twisted'},
    'checks': {'handlers', 'models', 'multiplexing', 'transport'},
    'farewell': {'autobahn', 'twisted'},
    'handlers': {'auth', 'models', 'presence', 'signals'},
    'limits': {'models'},
    'models': {'presence'},
    'overtime': {'models', 'presence', 'transport'},
    'protocol': {'autobahn', 'daphne', 'page_consumers', 'pages'},
    'pytest_plugin': {'testing'},
    'router': {'guards', 'handlers', 'options'},
    'server': {'twisted'},
}
# Layers work in any project, with or without the rest of us.
LAYERS = {
    '__init__': {'inmemory', 'redis'},
    'admission': set(),
    'admission_script': {'admission'},
    'claims': {'errors', 'redis'},
    'connections': {'errors', 'redis', 'scripts', 'twisted'},
    'counts': {'dropped', 'redis'},
    'dropped': set(),
    'entries': {'mailboxes'},
    'errors': {'redis'},
    'frame_sender': {'errors', 'mailbox', 'twisted'},
    'hosts': {'asgi_redis', 'shards'},
    'inbox': {'connections', 'mailbox', 'upkeep'},
    'inmemory': {'asgiref', 'leases', 'local_groups', 'local_queues', 'mailboxes', 'twisted'},
    'last_messages': {'asgiref', 'errors', 'redis'},
    'leases': set(),
    'local_groups': set(),
    'local_queues': {'admission', 'asgiref', 'dropped', 'mailboxes', 'twisted'},
    'local_servers': {'errors', 'mailbox', 'scripts', 'standing', 'twisted'},
    'mailbox': set(),
    'mailboxes': {'admission', 'mailbox'},
    'message_scripts': {'admission_script'},
    'outbox': {'errors', 'frame_sender', 'last_messages', 'local_servers', 'mailbox', 'mailboxes', 'queue_sender',
               'ring'},
    'posting': {'errors', 'redis', 'scripts', 'twisted'},
    'queue_sender': {'errors', 'redis'},
    'rate_scripts': set(),
    'receiver': {'admission', 'connections', 'errors', 'mailboxes', 'redis', 'wakeups'},
    'redis': {'claims', 'counts', 'entries', 'errors', 'hosts', 'inbox', 'inmemory', 'local_servers', 'mailboxes',
              'outbox', 'receiver', 'redis_leases', 'ring', 'scripts', 'upkeep'},
    'redis_leases': {'errors'},
    'ring': {'connections', 'errors', 'posting', 'redis', 'shards'},
    'scripts': {'message_scripts', 'rate_scripts', 'server_scripts'},
    'server_scripts': set(),
    'shards': {'connections', 'errors'},
    'standing': {'scripts'},
    'upkeep': set(),
    'wakeups': {'errors'},
}
STACK = {'channels', 'daphne', 'asgiref', 'asgi_redis', 'redis', 'twisted', 'autobahn'}


def imports(node):
    """Yield the names of our modules and of the stack's packages that ``node`` imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split('.')[0] for alias in node.names if alias.name.split('.')[0] in STACK)
    elif isinstance(node, ast.ImportFrom) and node.level:
        yield from [node.module.split('.')[0]] if node.module else (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module.split('.')[0] in STACK:
        yield node.module.split('.')[0]


@pytest.mark.parametrize('path', sorted(PACKAGE.glob('*.py')), ids=lambda path: path.stem)
def test_a_module_imports_only_where_its_arrows_point(path):
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {name for function in functions for node in ast.walk(function) for name in imports(node)}
    everything = {name for node in ast.walk(tree) for name in imports(node)}
    at_import = {name for node in tree.body for child in ast.walk(node)
                 if not isinstance(node, ast.FunctionDef) for name in imports(child)} - inside
    assert at_import <= AT_IMPORT[path.stem]
    assert everything <= AT_IMPORT[path.stem] | IN_FUNCTIONS.get(path.stem, set())


@pytest.mark.parametrize('path', sorted(PACKAGE.glob('layers/*.py')), ids=lambda path: path.stem)
def test_a_layer_imports_nothing_of_the_core(path):
    assert {name for node in ast.walk(ast.parse(path.read_text())) for name in imports(node)} <= LAYERS[path.stem]


def test_the_library_reads_its_rows_where_it_writes_them():
    """Nothing of ours reads from a replica, which may be behind: see docs/how-to/deploy.md."""
    for path in PACKAGE.glob('**/*.py'):
        for line in path.read_text().splitlines():
            for call in re.findall(r'(?<!`)\b(?:Socket|Membership)\.objects(\..*)', line):
                there = any(name in call for name in ('.on_primary()', '.using(', '.purge_dead'))
                assert there or path.name == 'models.py', line


def test_layers_import_each_other_in_no_circle():
    # Below our module of that name, redis is the client.
    left = {module: {target for target in targets if target in LAYERS and target != 'redis'}
            for module, targets in LAYERS.items()}
    while left:
        free = {module for module, targets in left.items() if targets.isdisjoint(left)}
        assert free, 'a circle among {}'.format(sorted(left))
        left = {module: targets for module, targets in left.items() if module not in free}


@pytest.mark.parametrize('path', sorted(PACKAGE.glob('layers/*.py')), ids=lambda path: path.stem)
def test_a_layer_is_made_of_small_files_and_classes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            last = max(getattr(child, 'lineno', 0) for child in ast.walk(node))
            assert last - node.lineno < 200, node.name


def test_every_arrow_points_at_something():
    for arrows in (AT_IMPORT, IN_FUNCTIONS):
        for module, targets in arrows.items():
            source = (PACKAGE / (module + '.py')).read_text()
            for target in targets:
                assert target in source, '{} imports {} no more: remove the arrow'.format(module, target)
