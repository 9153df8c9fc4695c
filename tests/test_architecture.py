"""Who may import whom: the arrows of the design."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'sockets'

# What a module may import when it is imported, of ours and of the stack below.
AT_IMPORT = {
    '__init__': {'router'},
    'admin': {'ages', 'conf', 'exceptions', 'messages', 'models', 'revocation', 'transport'},
    'ages': set(),
    'apps': {'compat'},
    'audit': {'messages', 'rows', 'transport'},
    'background': set(),
    'auth': {'exceptions'},
    'checks': {'conf', 'router', 'routes', 'security'},
    'compat': set(),
    'conf': set(),
    'contracts': {'exceptions', 'messages', 'schemas'},
    'coroutines': set(),
    'description': {'conf', 'handlers', 'messages', 'multiplexing', 'schemas', 'transport'},
    'doctor': {'messages', 'models', 'transport'},
    'exceptions': set(),
    'farewell': set(),
    'frames': set(),
    'handlers': {'conf', 'contracts', 'exceptions', 'limits', 'messages', 'middleware', 'routes', 'security',
                 'transport', 'visitors'},
    'handshake': set(),
    'limits': {'conf', 'exceptions', 'messages'},
    'messages': {'exceptions'},
    'middleware': set(),
    'models': {'messages', 'signals', 'transport'},
    'multiplexing': {'exceptions', 'handlers', 'messages', 'transport'},
    'overtime': {'conf', 'messages'},
    'page_consumers': {'channels', 'pages'},
    'pages': {'conf', 'daphne', 'twisted'},
    'presence': {'background', 'conf', 'models', 'transport'},
    'protocol': {'audit', 'conf', 'daphne', 'frames', 'handshake', 'transport', 'twisted'},
    'pytest_plugin': set(),
    'revocation': {'auth', 'models'},
    'router': {'routes'},
    'routes': {'coroutines'},
    'rows': {'models', 'transport'},
    'schemas': set(),
    'security': {'conf'},
    'server': {'channels', 'daphne', 'farewell', 'layers', 'overtime', 'presence', 'workers'},
    'signals': set(),
    'testing': {'channels', 'conf', 'layers', 'messages', 'models', 'presence', 'transport'},
    'transport': {'background', 'channels', 'conf', 'exceptions', 'layers', 'overtime', 'signals'},
    'visitors': set(),
    'workers': {'channels', 'farewell', 'overtime', 'presence'},
}
# What its functions may import besides, when the apps are loaded.
IN_FUNCTIONS = {
    '__init__': {'handlers'},
    'apps': {'checks', 'farewell', 'protocol', 'revocation', 'router', 'rows', 'transport', 'workers'},
    'audit': {'twisted'},
    'checks': {'handlers', 'models', 'multiplexing', 'transport'},
    'farewell': {'autobahn', 'twisted'},
    'handlers': {'auth', 'models', 'presence', 'signals'},
    'limits': {'models'},
    'models': {'presence'},
    'overtime': {'models', 'presence', 'transport'},
    'protocol': {'autobahn', 'daphne', 'page_consumers', 'pages'},
    'pytest_plugin': {'testing'},
    'router': {'handlers'},
    'server': {'twisted'},
}
# Layers work in any project, with or without the rest of us.
LAYERS = {
    '__init__': {'inmemory', 'redis'},
    'admission': set(),
    'connections': {'redis', 'scripts', 'twisted'},
    'dropped': set(),
    'inmemory': {'admission', 'asgiref', 'dropped', 'leases', 'mailboxes', 'twisted'},
    'leases': set(),
    'mailboxes': {'admission'},
    'posting': {'connections', 'redis', 'scripts', 'twisted'},
    'redis': {'admission', 'asgi_redis', 'connections', 'dropped', 'inmemory', 'leases', 'mailboxes', 'posting', 'redis',
              'scripts', 'shards', 'standing', 'twisted'},
    'scripts': {'admission'},
    'shards': {'connections', 'redis'},
    'standing': {'scripts'},
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


def test_every_arrow_points_at_something():
    for arrows in (AT_IMPORT, IN_FUNCTIONS):
        for module, targets in arrows.items():
            source = (PACKAGE / (module + '.py')).read_text()
            for target in targets:
                assert target in source, '{} imports {} no more: remove the arrow'.format(module, target)
