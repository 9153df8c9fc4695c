"""What users get: the distributions, built from a clean tree and installed where nothing else is."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest
import websocket

from sockets.engines import DISTRIBUTIONS

from .. import servers
from .conftest import Client
from .documents import Document

ROOT = Path(__file__).resolve().parent.parent.parent
ON_CHANNELS_4 = Document('README.md').section('On Channels 4')
FIRST_CONTACT = Document('README.md').section('Five minutes to a first socket').without('On Channels 4')


def environment(**variables):
    """Return our environment with ``variables``, without what would lead to anything but an installed package."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in ('PYTHONPATH', 'SOCKETS_STACK') and not key.startswith('DJANGO')
    }
    return dict(inherited, **variables)


def run(*args, cwd, **variables):
    """Return what a command prints; the test fails with that if the command does."""
    process = subprocess.run(
        [str(arg) for arg in args],
        cwd=str(cwd),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A copy of what git knows and of what it would be told next, without what builds and tests left behind."""
    directory = tmp_path_factory.mktemp('clean tree')
    names = run('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', cwd=ROOT)
    for name in filter(None, names.split('\0')):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(ROOT / name), str(directory / name))
    return directory


needs_python310 = pytest.mark.skipif(sys.version_info < (3, 10), reason='Channels 4 needs Python 3.10')
of_channels1 = pytest.mark.parametrize('stack', ['channels1'], scope='module')
each_stack = pytest.mark.parametrize(
    'stack', ['channels1', pytest.param('channels4', marks=needs_python310)], scope='module'
)


@pytest.fixture(scope='module')
def dist(stack, tree, tmp_path_factory):
    """The directory of an sdist and of the wheel that was built from it, where the variable was set for the other one."""
    directory = tmp_path_factory.mktemp('dist')
    build = [sys.executable, '-m', 'build', '--sdist', '--outdir', directory]
    run(*build, tree, cwd=tree, **({} if stack == 'channels1' else {'SOCKETS_STACK': stack}))
    (sdist,) = directory.glob('*.tar.gz')
    (other,) = set(DISTRIBUTIONS) - {stack}
    pip_wheel = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', directory]
    run(*pip_wheel, sdist, cwd=directory, SOCKETS_STACK=other)
    return directory


@pytest.fixture(scope='module')
def sdist(dist):
    (sdist,) = dist.glob('*.tar.gz')
    return sdist


@pytest.fixture(scope='module')
def wheel(dist):
    (wheel,) = dist.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def virtualenv(stack, tree, tmp_path_factory, request):
    """A virtualenv in which the first line of the README was run, and how many seconds that took.

    For Channels 4, pip was given the sdist, and no variable.
    """
    directory = tmp_path_factory.mktemp('empty virtualenv')
    venv.create(str(directory), with_pip=True)
    began = time.monotonic()
    if stack == 'channels1':
        shell(FIRST_CONTACT.commands()[0], directory, cwd=tree)
    else:
        sdist = request.getfixturevalue('sdist')
        run(programs(directory) / 'python', '-m', 'pip', 'install', '--quiet', f'{sdist}[daphne,redis]', cwd=directory)
    return directory, time.monotonic() - began


@pytest.fixture
def python(virtualenv):
    """The Python of a virtualenv that holds the package and what it asks for."""
    return programs(virtualenv[0]) / 'python'


def programs(directory):
    return directory / ('Scripts' if os.name == 'nt' else 'bin')


def activated(directory):
    """Return the environment variables of who works in the virtualenv."""
    return {'PYTHONPATH': '', 'PATH': os.pathsep.join([str(programs(directory)), os.environ['PATH']])}


def shell(command, directory, cwd):
    """Run a line of a shell in the virtualenv and return what it prints."""
    return run('sh', '-c', command, cwd=cwd, **activated(directory))


def package_files(tree):
    """Return the files of the package as the tree has them."""
    return {path.relative_to(tree).as_posix() for path in (tree / 'sockets').rglob('*') if path.is_file()}


@each_stack
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(stack, wheel, tree):
    names = {name for name in zipfile.ZipFile(str(wheel)).namelist() if '.dist-info/' not in name}
    assert names == package_files(tree)
    assert {
        'sockets/migrations/0001_initial.py',
        'sockets/static/sockets/sockets.js',
        'sockets/static/sockets/sockets.d.ts',
        'sockets/templatetags/sockets.py',
    } <= names
    # Without it, a type checker ignores the annotations of an installed package.
    assert 'sockets/py.typed' in names
    migrations = {path.relative_to(tree).as_posix() for path in (tree / 'sockets/migrations').glob('*.py')}
    assert len(migrations) > 1 and migrations <= names


@each_stack
def test_the_sdist_holds_every_file_of_the_package_its_tests_and_its_licence(stack, sdist, tree):
    with tarfile.open(str(sdist)) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert package_files(tree) <= names
    assert {
        'LICENSE',
        'README.md',
        'CHANGELOG.md',
        'tox.ini',
        'tests/settings.py',
        'tests/browser_client.test.mjs',
    } <= names


@each_stack
def test_the_wheel_tells_pytest_of_its_fixture(stack, wheel):
    archive = zipfile.ZipFile(str(wheel))
    (name,) = [name for name in archive.namelist() if name.endswith('.dist-info/entry_points.txt')]
    assert archive.read(name).decode().split() == ['[pytest11]', 'sockets.pytest_plugin', '=', 'sockets.pytest_plugin']


@pytest.fixture(scope='module')
def metadata(wheel):
    """What a registry reads: the fields of the wheel, and the page that it shows."""
    archive = zipfile.ZipFile(str(wheel))
    (name,) = [name for name in archive.namelist() if name.endswith('.dist-info/METADATA')]
    return email.message_from_string(archive.read(name).decode('utf-8'))


@each_stack
def test_whoever_has_an_sdist_gets_what_its_name_says(stack, sdist, metadata, virtualenv):
    assert metadata['Name'] == DISTRIBUTIONS[stack]
    with tarfile.open(str(sdist)) as archive:
        (name,) = [name for name in archive.getnames() if name.count('/') == 1 and name.endswith('/PKG-INFO')]
        told = archive.extractfile(name).read().decode('utf-8')
    name = DISTRIBUTIONS[stack].replace('-', '_')
    (path,) = virtualenv[0].rglob(f'{name}-*.dist-info/METADATA')
    assert facts(told) == facts(metadata.as_string()) == facts(path.read_text(encoding='utf-8'))


def facts(text):
    """Return what the metadata ``text`` says, whichever version of setuptools has written it."""
    message = email.message_from_string(text)
    return sorted(
        (key, value.replace('_', '-') if key == 'Requires-Dist' else value)
        for key, value in [*message.items(), ('', message.get_payload().strip())]
        # Newer versions say more of these.
        if key not in ('Metadata-Version', 'License-File', 'Dynamic')
    )


def names_of(requirements):
    return {re.match(r'[\w.-]+', requirement).group().replace('_', '-') for requirement in requirements}


@each_stack
def test_each_has_the_requirements_and_the_extras_of_its_stack(stack, metadata):
    needed = [entry for entry in metadata.get_all('Requires-Dist') if 'extra ==' not in entry]
    extras = set(metadata.get_all('Provides-Extra'))
    djangos = {name.rpartition(' ')[2] for name in metadata.get_all('Classifier') if ' Django :: ' in name}
    assert {'docs', 'lint', 'live', 'postgres', 'test'} <= extras
    if stack == 'channels1':
        assert metadata['Requires-Python'] == '>=3.7'
        assert {'Django', 'asgi-redis', 'asgiref', 'channels', 'daphne', 'redis'} <= names_of(needed)
        assert 'channels<2,>=1.1.8' in needed
        assert djangos == {'1.11', '2.0', '2.1', '2.2'}
    else:
        assert metadata['Requires-Python'] == '>=3.10'
        assert names_of(needed) == {'Django', 'asgiref', 'channels'}
        assert 'channels<5,>=4.3' in needed
        assert {'daphne', 'redis', 'uvicorn'} <= extras
        assert djangos == {'4.2', '5.2', '6.0', '6.1'}


def test_a_stack_that_nobody_knows_is_refused_with_those_that_there_are(tree, tmp_path):
    process = subprocess.run(
        [sys.executable, '-m', 'build', '--sdist', '--outdir', str(tmp_path), str(tree)],
        env=environment(SOCKETS_STACK='channels5'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode != 0
    assert "SOCKETS_STACK is 'channels5'. Unset it, or set it to one of: channels1, channels4." in process.stdout


@of_channels1
def test_the_page_of_a_registry_has_absolute_links_to_this_release(metadata):
    import sockets

    page = metadata.get_payload()
    links = re.findall(r'\]\(([^)\s]+)\)', page)
    relative = re.findall(r'\]\(([^)\s:]+)\)', (ROOT / 'README.md').read_text(encoding='utf-8'))
    assert len(links) >= len(relative) > 10
    assert all(re.match('https?://[^/]+/', link) for link in links), links
    base = '{}/blob/v{}/'.format(metadata['Home-page'], sockets.__version__)
    there = [f'README.md{link}' if link.startswith('#') else link for link in relative]
    assert [link[len(base) :] for link in links if link.startswith(base)] == there
    # What they lead to is tested where the README's own links are (test_docs.py).
    assert '<img' not in page and 'href=' not in page


@of_channels1
def test_the_registry_is_told_where_the_project_lives(metadata):
    urls = dict(url.split(', ') for url in metadata.get_all('Project-URL'))
    assert {'Documentation', 'Changelog', 'Issues', 'Source'} <= set(urls)
    assert all(url.startswith(metadata['Home-page']) for url in urls.values())


@of_channels1
def test_nothing_can_be_published_with_an_address_that_is_a_placeholder(metadata):
    is_placeholder = '.example/' in metadata['Home-page']
    assert ('Private :: Do Not Upload' in metadata.get_all('Classifier')) == is_placeholder


@each_stack
def test_the_wheel_is_named_after_the_version_of_the_package(stack, wheel):
    import sockets

    name = DISTRIBUTIONS[stack].replace('-', '_')
    assert wheel.name == f'{name}-{sockets.__version__}-py3-none-any.whl'


@each_stack
def test_what_pip_installs_with_the_wheel_fits_together(stack, python, tmp_path):
    assert 'No broken requirements found.' in run(python, '-m', 'pip', 'check', cwd=tmp_path)


@each_stack
def test_the_router_can_be_imported_where_no_settings_are_configured(stack, python, tmp_path):
    assert run(python, '-W', 'error', '-c', 'from sockets import SocketRouter', cwd=tmp_path) == ''


@of_channels1
def test_the_stock_redis_layer_and_msgpack_fit_together(python, tmp_path):
    # What asgi_redis does with each message; msgpack 1 in the place of msgpack-python raises here.
    assert (
        run(
            python, '-c', 'import msgpack; print(msgpack.unpackb(msgpack.packb("a"), encoding="utf8"))', cwd=tmp_path
        ).split()[-1]
        == 'a'
    )


@each_stack
def test_the_migrations_of_the_wheel_make_the_table_of_the_model(stack, python, tmp_path):
    (tmp_path / 'project.py').write_text(
        '\n'.join(
            [
                "SECRET_KEY = 'tests only'",
                "INSTALLED_APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.sessions',",
                "                  'channels', 'sockets']",
                "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'db.sqlite3'}}",
                "CHANNEL_LAYERS = {'default': {'BACKEND': 'asgiref.inmemory.ChannelLayer', 'ROUTING': []}}"
                if stack == 'channels1'
                else "CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}",
            ]
        )
    )
    django = [python, '-m', 'django']
    run(*django, 'migrate', '--settings=project', '--pythonpath=.', cwd=tmp_path)
    run(
        *django,
        'makemigrations',
        '--check',
        '--dry-run',
        'sockets',
        '--settings=project',
        '--pythonpath=.',
        cwd=tmp_path,
    )


@each_stack
def test_the_readme_leads_from_nothing_to_a_first_message_in_five_minutes_and_twenty_lines(stack, virtualenv, tmp_path):
    directory, seconds = virtualenv
    began = time.monotonic()
    shell('django-admin startproject mysite', directory, cwd=tmp_path)
    project, lines = tmp_path / 'mysite', 0
    blocks = FIRST_CONTACT.all_blocks
    if stack == 'channels4':
        blocks = [block for block in blocks if block.file != 'mysite/settings.py'] + ON_CHANNELS_4.all_blocks
    for block in blocks:
        if block.file:
            block.write(project)
        # What one types to have a socket: without the page, for which everybody has one of their own.
        if block.language == 'python':
            lines += len([line for line in block.text.splitlines() if line.strip() and not line.startswith('#')])
    # asgi.py was there before, with most of its lines.
    assert lines <= (20 if stack == 'channels1' else 24)
    install, check, migrate, runserver = FIRST_CONTACT.commands()
    assert shell(check, directory, cwd=project).startswith('System check identified no issues')
    shell(migrate, directory, cwd=project)
    port = servers.free_port()
    server = servers.Program(
        ['sh', '-c', f'exec {runserver} 127.0.0.1:{port}'],
        tmp_path / 'runserver.log',
        cwd=project,
        env=activated(directory),
    )
    try:
        servers.wait_for_port(port, server.process, server.log_path)
        client = Client(websocket.create_connection(f'ws://127.0.0.1:{port}/mypage/', timeout=10))
        assert client.ask({'type': 'ADD', 'a': 2, 'b': 3}) == {'type': 'SUM', 'sum': 5}
        client.close()
    finally:
        server.stop()
    # To read it takes longer than that.
    assert seconds + time.monotonic() - began < 150
