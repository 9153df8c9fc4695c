"""Streams in Chromium: a page that was away has each message once and in order, however it was away."""

import sys

import pytest

from .. import servers
from .conftest import eventually
from .test_browser_client import ASGI, ENVIRONMENT, PROJECT, Page, Site, execute, write

SETTINGS = PROJECT + "\nSTATIC_URL = '/static/'\n"

MODELS = """
from django.db import models


class Said(models.Model):
    text = models.TextField()
"""

PAGES = """
from django.db import transaction
from django.views.generic import TemplateView

from mysite.models import Said
from sockets import SocketRouter
from sockets.routing import route_class
from sockets.streams import Stream


def say(*texts):
    with transaction.atomic():
        for text in texts:
            Said.objects.create(text=text)
            Stream('tea').send_action('SAID', text=text)


class Tea(TemplateView):
    template_name = 'tea.html'
    socket = SocketRouter()

    def get_context_data(self, **kwargs):
        position = Stream('tea').position()
        said = [row.text for row in Said.objects.order_by('pk')]
        if 'late' in self.request.GET:
            say(self.request.GET['late'])
        return {'position': position, 'said': said}

    @socket.connect
    def on_open(socket):
        socket.follow('tea')

    @socket.route('SAY')
    def on_say(socket, content):
        say(content['text'])


routing = [route_class(Tea.socket.Handler, path='^/tea/$')]
"""

URLS = """
import os

import sockets
from django.urls import path
from django.views.generic import TemplateView
from django.views.static import serve

from mysite.pages import Tea

urlpatterns = [
    path('tea/', Tea.as_view()),
    path('other/', TemplateView.as_view(template_name='other.html')),
    path('static/<path:path>', serve, {'document_root': os.path.join(os.path.dirname(sockets.__file__), 'static')}),
]
"""

TEA = """<!doctype html><title>Tea</title>{% load sockets %}
<p>Tea: <b id="state"></b>, <b id="count"></b> messages</p>
<ol id="list">{% for text in said %}<li>{{ text }}</li>{% endfor %}</ol>
{% stream_position position %}{% socket_script %}
<script type="module">
  const socket = window.socket = new SocketRouter('/tea/', {minDelay: 200, maxDelay: 1000});
  window.lost = [];
  socket.addEventListener('lost', ({detail}) => lost.push(detail));
  socket.addEventListener('state', () => { state.textContent = socket.state; });
  socket.route('SAID', ({text}) => {
    const item = document.createElement('li');
    item.textContent = text;
    list.append(item);
    count.textContent = list.children.length;
  });
  addEventListener('pageshow', event => { window.persisted = event.persisted; });
</script>"""

SAY = """
import sys

import django

django.setup()

from mysite.pages import say

first, count = map(int, sys.argv[1:])
for n in range(first, first + count, 50):
    say(*[f'm{n}' for n in range(n, min(n + 50, first + count))])
"""


@pytest.fixture
def site(tmp_path, run):
    files = {
        '__init__.py': '',
        'settings.py': SETTINGS,
        'models.py': MODELS,
        'pages.py': PAGES,
        'urls.py': URLS,
        'asgi.py': ASGI,
        'templates/tea.html': TEA,
        'templates/other.html': '<!doctype html><title>Other</title>',
    }
    write(tmp_path, files)
    migrate = 'import django; django.setup()\nfrom django.core.management import call_command as call\n'
    python(tmp_path, migrate + 'call("migrate", run_syncdb=True, verbosity=0)')
    site = Site(tmp_path, run)
    site.serve()
    return site


def python(directory, *args):
    code, output = execute([sys.executable, '-c', *args], cwd=str(directory), env=servers.environment(**ENVIRONMENT))
    assert code == 0, output


def write_messages(site, first, count):
    """Have another process write messages, which cannot reach the connections of the server: they have to ask."""
    python(site.directory, SAY, first, count)


def expect(page, last):
    """Wait until the page has the messages up to ``last``, and see that it has each once and in order."""
    texts = [f'm{n}' for n in range(1, last + 1)]
    # Not as soon as the last one is there: one that came twice would come after it.
    eventually(lambda: f'm{last}' in items(page), 30)
    page.run('await new Promise(done => setTimeout(done, 500))')
    assert items(page) == texts
    assert page.run('return lost') == []
    page.becomes('open')


def items(page):
    return page.run('return [...document.querySelectorAll("li")].map(item => item.textContent)')


def open_page(site, open_browser, query='', **kwargs):
    page = Page(open_browser(**kwargs), f'{site.url}/tea/{query}')
    page.becomes('open')
    return page


def go_offline(page, is_offline):
    page.browser.execute_cdp_cmd(
        'Network.emulateNetworkConditions',
        {'offline': is_offline, 'latency': 0, 'downloadThroughput': -1, 'uploadThroughput': -1},
    )


def test_a_page_that_was_offline_has_all_that_was_written(site, open_browser, tmp_path):
    page = open_page(site, open_browser)
    page.run('socket.send("SAY", {text: "m1"})')
    expect(page, 1)
    go_offline(page, True)
    page.becomes('offline')
    write_messages(site, 2, 500)
    go_offline(page, False)
    expect(page, 501)
    page.run('socket.send("SAY", {text: "m502"})')
    expect(page, 502)
    page.browser.save_screenshot(str(tmp_path / 'tea.png'))


@pytest.mark.parametrize('end', ['stop', 'kill'])
def test_a_page_that_sees_the_server_restart_has_all_that_was_written(site, open_browser, end):
    page = open_page(site, open_browser)
    if end == 'kill':
        site.server.process.kill()
    site.server.stop()
    page.becomes('waiting')
    write_messages(site, 1, 500)
    site.serve()
    expect(page, 500)


def test_a_page_that_is_loaded_again_has_all_that_was_written_and_so_has_another_tab(site, open_browser):
    page = open_page(site, open_browser)
    write_messages(site, 1, 500)
    page.browser.refresh()
    expect(page, 500)
    page.browser.switch_to.new_window('tab')
    page.browser.get(site.url + '/tea/')
    page.becomes('open')
    write_messages(site, 501, 100)
    expect(page, 600)
    page.browser.switch_to.window(page.browser.window_handles[0])
    expect(page, 600)


@pytest.mark.parametrize('is_kept', [True, False])
def test_a_page_of_the_back_button_has_all_that_was_written(site, open_browser, is_kept):
    # Where the browser does not keep the page, it shows what it was once sent, with the position of that time.
    page = open_page(site, open_browser, arguments=() if is_kept else ('--disable-features=BackForwardCache',))
    page.run('socket.send("SAY", {text: "m1"})')
    expect(page, 1)
    page.run(f'location.assign("{site.url}/other/")')
    eventually(lambda: page.browser.title == 'Other')
    write_messages(site, 2, 500)
    page.browser.back()
    eventually(lambda: page.browser.title == 'Tea')
    expect(page, 501)
    assert page.run('return window.persisted') is is_kept


def test_a_message_that_is_committed_after_the_queries_of_the_page_is_in_its_list_once(site, open_browser):
    # The first one makes the stream: the position of the page is one of no epoch.
    for n in (1, 2):
        page = open_page(site, open_browser, f'?late=m{n}')
        expect(page, n)
        page.browser.quit()


def test_a_page_that_is_given_more_than_one_answer_holds_has_all_of_it(site, open_browser):
    page = open_page(site, open_browser)
    go_offline(page, True)
    page.becomes('offline')
    python(site.directory, SAY.replace("f'm{n}'", "f'm{n}' + 'x' * 200000"), 1, 60)
    go_offline(page, False)
    eventually(lambda: len(items(page)) == 60, 30)
    assert [text[:4].strip('x') for text in items(page)] == [f'm{n}' for n in range(1, 61)]
