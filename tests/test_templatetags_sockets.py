import json
import re

import pytest
from django.core.management import call_command
from django.template import Context, Template, TemplateSyntaxError

from sockets.streams import Stream

SCRIPT = re.compile(r'<script type="module" src="(.+)"></script>$')


def source():
    return SCRIPT.match(Template('{% load sockets %}{% socket_script %}').render(Context())).group(1)


def test_the_script_is_a_static_file(settings):
    assert source() == '/static/sockets/sockets.js'
    settings.STATIC_URL = 'https://cdn.example.com/a&b/'
    assert source() == 'https://cdn.example.com/a&amp;b/sockets/sockets.js'


def test_the_storage_of_static_files_names_the_script(settings, tmp_path):
    settings.INSTALLED_APPS = ['django.contrib.staticfiles', *settings.INSTALLED_APPS]
    storage = 'django.contrib.staticfiles.storage.ManifestStaticFilesStorage'
    if hasattr(settings, 'STORAGES'):
        settings.STORAGES = {**settings.STORAGES, 'staticfiles': {'BACKEND': storage}}
    else:
        # Django before 4.2.
        settings.STATICFILES_STORAGE = storage
    settings.STATIC_ROOT = str(tmp_path)
    settings.DEBUG = False
    call_command('collectstatic', interactive=False, verbosity=0, ignore_patterns=['admin'])
    name = re.match(r'/static/(sockets/sockets\.[0-9a-f]{12}\.js)$', source()).group(1)
    assert 'class SocketRouter' in (tmp_path / name).read_text()


@pytest.mark.django_db
def test_the_position_of_a_stream_is_printed_for_the_page_and_nothing_in_it_ends_the_element():
    text = '{% load sockets %}{% stream_position one other %}'
    one, other = Stream('</script><b>&amp;').position(), {'stream': 'tea', 'epoch': 'k3f9', 'offset': 2, 'more': 1}
    printed = Template(text).render(Context({'one': one, 'other': other}))
    data = re.match('<script type="application/json" data-stream-positions>(.*)</script>$', printed).group(1)
    assert '<' not in data and json.loads(data) == [one, {'stream': 'tea', 'epoch': 'k3f9', 'offset': 2}]
    for wrong in (None, 5, {'stream': 'tea'}):
        with pytest.raises(TypeError, match=r'A position is what Stream.position\(\) returns'):
            Template(text).render(Context({'one': wrong, 'other': other}))


@pytest.mark.parametrize('name', ['</script><script>alert(1)</script>', '<!--', ']]>', '&quot;', 'é\u2028\ud800', "'"])
def test_no_name_of_a_stream_ends_the_element(name):
    position = {'stream': name, 'epoch': 'k3f9', 'offset': 1}
    printed = Template('{% load sockets %}{% stream_position position %}').render(Context({'position': position}))
    data = printed.split('positions>', 1)[1][: -len('</script>')]
    assert not set(data) & set('<>&')
    assert json.loads(data)[0]['stream'] == name


def test_a_stream_position_without_a_position_is_a_mistake_of_the_template():
    # It printed that the page has read no stream, and the page missed what came before its socket.
    with pytest.raises(TemplateSyntaxError, match='{% stream_position position %}'):
        Template('{% load sockets %}{% stream_position %}').render(Context())


@pytest.mark.parametrize('context', [{}, {'position': None}, {'position': ''}, {'position': {}}])
@pytest.mark.parametrize('name', ['position', 'position.of_tea', 'page.position'])
def test_a_variable_that_the_context_lacks_is_named_as_what_is_missing(context, name):
    if context == {'position': {}} and name == 'position':
        return
    with pytest.raises(TypeError, match='not in the context'):
        Template('{% load sockets %}{% stream_position ' + name + ' %}').render(Context(context))
