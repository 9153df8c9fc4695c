import os
import re
import sys
from types import ModuleType

import channels
import django
import pytest
from django.core.exceptions import ImproperlyConfigured

from sockets import engine, engines


def test_a_server_prefix_is_what_its_channels_share():
    assert engine.server_of('daphne.response.X!y') == 'daphne.response.X!'
    assert engine.server_of('websocket.connect') == 'websocket.connect'


def have(monkeypatch, version):
    """Have this version of Channels installed; return the names of the modules that are imported for it."""
    imported = []
    channels = ModuleType('channels')
    channels.__version__ = version

    def import_module(name):
        imported.append(name)
        if name == 'channels':
            if version is None:
                raise ModuleNotFoundError("No module named 'channels'", name='channels')
            return channels
        module = ModuleType(name)
        module.engine = name
        return module

    for module in (engine, engines):
        monkeypatch.setattr(module, 'import_module', import_module)
    monkeypatch.setattr(engine, '_current', None)
    return imported


@pytest.mark.parametrize('version, name', [('1.1.8', 'channels1'), ('4.3.2', 'channels4'), ('4.0b1', 'channels4')])
def test_the_version_of_channels_says_which_engine_it_is(monkeypatch, version, name):
    imported = have(monkeypatch, version)
    # Before the apps are loaded, of the engine only the package.
    engine.prepare()
    assert imported == ['channels', 'sockets.engines.' + name]
    assert engine.current() == engine.current() == f'sockets.engines.{name}.engine'


@pytest.mark.parametrize('version', ['2.4.0', '3.0.5', '5.0', '10.1', '0.17.3'])
def test_a_channels_that_there_is_no_engine_for_is_said_with_what_to_install(monkeypatch, version):
    have(monkeypatch, version)
    for ask in (engine.prepare, engine.current):
        with pytest.raises(ImproperlyConfigured) as raised:
            ask()
        assert f'Channels {version}:' in str(raised.value)
        assert "'channels>=4.3,<5'" in str(raised.value) and "'channels<2'" in str(raised.value)


def test_without_channels_there_is_an_engine_that_says_what_is_missing(monkeypatch):
    have(monkeypatch, None)
    engine.prepare()
    with pytest.raises(ImproperlyConfigured, match='nothing to run on'):
        engine.current().install()


def test_what_is_installed_and_broken_says_so_itself(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'django.utils.six'", name='django.utils.six')

    for module in (engine, engines):
        monkeypatch.setattr(module, 'import_module', import_module)
    with pytest.raises(ModuleNotFoundError, match='six'):
        engine.prepare()


def test_the_engine_of_this_process_runs_on_what_is_installed():
    version = sys.modules['channels'].__version__
    assert type(engine.current()).__module__ == f'sockets.engines.channels{version[0]}.engine'


def test_an_environment_of_tox_has_what_it_is_called_after():
    # Django REST framework 3.12 had pip put Django 2.2 in the place of each older one, and nobody noticed.
    name = re.search(r'-django(\d)(\d+)(-channels4)?$', os.environ.get('TOX_ENV_NAME', ''))
    if name:
        assert django.VERSION[:2] == (int(name.group(1)), int(name.group(2)))
        assert channels.__version__[0] == ('4' if name.group(3) else '1')
