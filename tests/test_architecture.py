"""Who may import whom: the arrows of the design, subfolders, commands and imports within functions included."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import django
import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'sockets'

# Only these two know what they run on.
STACK = {'channels', 'daphne', 'asgiref', 'asgi_redis', 'redis', 'twisted', 'autobahn', 'msgpack', 'uvicorn'}
KNOW_THE_STACK = ('engines.', 'layers.')

# Which rooms the files of a room may import from, beside their own. '' are the files at the top.
ROOMS = {
    'access': {'', 'contracts', 'declaration', 'execution', 'models'},
    'admin': {'', 'access', 'operations', 'models', 'streams'},
    'checks': {'', 'access', 'connection', 'declaration', 'engines', 'execution', 'models'},
    'connection': {'', 'access', 'contracts', 'declaration', 'execution', 'models', 'streams'},
    'contracts': {'', 'declaration', 'execution'},
    'declaration': {'', 'execution'},
    'engines': {'', 'access', 'checks', 'connection', 'declaration', 'execution', 'layers', 'operations', 'models'},
    'execution': {''},
    # Layers work in any project, with or without the rest of us.
    'layers': set(),
    'management': {'', 'access', 'engines', 'execution', 'operations', 'models', 'streams'},
    'migrations': {'access', 'models'},
    'models': {'', 'connection', 'contracts'},
    'operations': {'', 'contracts', 'models', 'streams'},
    'streams': {'', 'connection', 'execution', 'models'},
    'templatetags': {'', 'streams'},
    'testing': {'', 'connection', 'contracts', 'models', 'streams'},
}

MODULES = {}
for _path in PACKAGE.rglob('*.py'):
    _name = '.'.join(_path.relative_to(PACKAGE).with_suffix('').parts)
    MODULES[_name.rpartition('.')[0] if _name.endswith('.__init__') else _name] = _path


def imports(name):
    """Return the modules of ours, and the packages of the stack, that the module ``name`` imports."""
    path = MODULES[name]
    package = [] if name == '__init__' else name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
    ours, stack = set(), set()
    # What only type checkers import is not imported when the code runs, and makes no circle.
    tree = ast.parse(path.read_text())
    unread = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == 'TYPE_CHECKING'
        for statement in node.body
        for child in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            stack.update(alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            stack.add(node.module.split('.')[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + ([node.module] if node.module else [])
            for alias in node.names:
                full = '.'.join([*base, alias.name])
                ours.add(full if full in MODULES else '.'.join(base) or '__init__')
    return ours - {name}, stack & STACK


def room(name):
    return name.partition('.')[0] if '.' in name or MODULES[name].name == '__init__.py' and name != '__init__' else ''


@pytest.mark.parametrize('name', sorted(MODULES))
def test_a_module_imports_only_where_its_arrows_point(name):
    ours, stack = imports(name)
    assert not stack or name.startswith(KNOW_THE_STACK)
    if room(name):
        assert {room(target) for target in ours} - {room(name)} <= ROOMS[room(name)]
    else:
        # What is at the top imports what it is made of. Which engine there is, engine.py finds out.
        assert not [target for target in ours if target.startswith('engines.')]


# Imports every module of the core where nothing of the stack can be imported, in a project without an engine.
WITHOUT_STACK = """
    import sys
    from importlib import import_module

    class Refuse:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition('.')[0] in {stack!r}:
                raise ModuleNotFoundError('No module named {{!r}}'.format(name), name=name)

    sys.meta_path.insert(0, Refuse)

    import django
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    settings.configure(SECRET_KEY='tests only', INSTALLED_APPS=[
        'django.contrib.admin', 'django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.messages',
        'django.contrib.sessions', 'sockets'])
    try:
        django.setup()
    except ImproperlyConfigured as error:
        print(error)
    for name in {modules!r}:
        import_module(name)
    print(sorted({{name.partition('.')[0] for name in sys.modules}} & {stack!r}))
"""


def test_the_core_is_imported_where_no_engine_is_installed():
    modules = [
        'sockets' if name == '__init__' else 'sockets.' + name
        for name in sorted(MODULES)
        if not (name + '.').startswith(KNOW_THE_STACK)
    ]
    assert 'sockets.management.commands.runsockets' in modules and 'sockets.testing.client' in modules
    # Since Django 3, it needs asgiref itself.
    stack = STACK - {'asgiref'} if django.VERSION >= (3,) else STACK
    script = textwrap.dedent(WITHOUT_STACK).format(stack=stack, modules=modules)
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script],
        cwd=str(PACKAGE.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # The app is not ready, and says what to install.
    said, loaded = process.stdout.splitlines()
    assert said.startswith('sockets has nothing to run on: type "python -m pip install \'channels>=4.3,<5\'", or')
    assert loaded == '[]'


def test_what_needs_no_engine_imports_none():
    program = (
        'import sys, django; from django.conf import settings;'
        'settings.configure(); import sockets, sockets.router, sockets.routes, sockets.messages, sockets.access.origins,'
        'sockets.conf, sockets.exceptions, sockets.signals; print("channels" in sys.modules)'
    )
    assert subprocess.check_output([sys.executable, '-c', program]).strip() == b'False'


def test_no_engine_imports_another():
    for name in MODULES:
        engine = re.match(r'engines\.\w+', name)
        for target in imports(name)[0] if engine else ():
            assert not target.startswith('engines.') or target.startswith(engine.group())


def test_modules_import_each_other_in_no_circle():
    left = {name: imports(name)[0] & set(MODULES) for name in MODULES}
    while left:
        free = {name for name, targets in left.items() if targets.isdisjoint(left)}
        assert free, f'a circle among {sorted(left)}'
        left = {name: targets for name, targets in left.items() if name not in free}


@pytest.mark.parametrize('name', sorted(MODULES))
def test_files_and_classes_are_small(name):
    text = MODULES[name].read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            last = max(getattr(child, 'lineno', 0) for child in ast.walk(node))
            # A layer has as many methods as Channels and servers ask for.
            assert last - node.lineno < (250 if name.startswith('layers.') else 200), node.name


def test_the_library_reads_its_rows_where_it_writes_them():
    """Nothing of ours reads from a replica, which may be behind: see docs/how-to/deploy.md."""
    for name, path in MODULES.items():
        text = path.read_text()
        for match in re.finditer(r'(?<!`)\b(?:Socket|Membership|Ending)\.objects(?=\s*\.)', text):
            call = re.sub(r'\s', '', text[match.end() : match.end() + 100])
            there = any(part in call for part in ('.on_primary()', '.using(', '.purge_dead'))
            assert there or name.startswith('models.'), text[match.start() : match.end() + 80]
