import pytest
from django.core.management import CommandError, call_command

from sockets.access.origins import can_match, client_ip, origin_allowed, remedy


@pytest.mark.parametrize(
    'hosts, origin, host, allowed',
    [
        (['example.com'], 'https://example.com', 'example.com', True),
        (['example.com'], 'https://example.com:8443', 'example.com:8443', True),
        (['example.com'], 'https://EXAMPLE.com', 'example.com', True),
        (['example.com'], 'HTTPS://example.com', 'EXAMPLE.com', True),
        (['example.com'], 'https://example.com.', 'example.com', True),
        (['example.com'], 'https://example.com..', 'example.com', False),
        # Where Host has a port, it counts; that of a scheme is there without being said.
        (['example.com'], 'https://example.com:8443', 'example.com', True),
        (['example.com'], 'https://example.com', 'example.com:8443', False),
        (['example.com'], 'https://example.com:1', 'example.com:8443', False),
        (['example.com'], 'https://example.com:1', 'EXAMPLE.com.:8443', False),
        (['example.com'], 'https://example.com', 'example.com:443', True),
        (['example.com'], 'http://example.com', 'example.com:80', True),
        (['example.com'], 'http://example.com', 'example.com:443', False),
        (['example.com'], 'ws://example.com', 'example.com:80', True),
        (['*'], 'https://shop.example:1', 'shop.example:2', False),
        (['[::1]'], 'http://[::1]:8000', '[::1]:8001', False),
        # A name of ours that is not the one of this server.
        (['.example.com'], 'https://www.example.com', 'api.example.com:8443', True),
        # No browser says so.
        (['example.com'], 'https://user@example.com', 'example.com', False),
        (['example.com'], 'https://evil.com@example.com', 'example.com', False),
        (['example.com'], 'https://example.com:80@evil.com', 'example.com', False),
        (['example.com'], 'https://example.com/path', 'example.com', False),
        (['example.com'], 'https://example.com?x', 'example.com', False),
        (['example.com'], 'https://evil.com\\example.com', 'example.com', False),
        (['example.com'], 'https://exam\tple.com', 'example.com', False),
        (['example.com'], 'https://example.com\n', 'example.com', False),
        (['example.com'], 'https://example.com, https://evil.com', 'example.com', False),
        (['example.com'], 'https://example.com:port', 'example.com', False),
        (['example.com'], '//example.com', 'example.com', False),
        (['example.com'], 'example.com', 'example.com', False),
        # Another scheme is no page of a site.
        (['example.com'], 'ftp://example.com', 'example.com', False),
        (['example.com'], 'file://example.com', 'example.com', False),
        (['example.com'], 'chrome-extension://example.com', 'example.com', False),
        (['example.com'], 'javascript://example.com', 'example.com', False),
        # Browsers and ALLOWED_HOSTS write other alphabets in ASCII.
        (['xn--bcher-kva.example'], 'https://xn--bcher-kva.example', 'xn--bcher-kva.example', True),
        (['b\xfccher.example'], 'https://b\xfccher.example', 'b\xfccher.example', False),
        (['kelvin.example'], 'https://\u212aelvin.example', 'kelvin.example', False),
        (['.example.com'], 'https://www.example.com', 'example.com', True),
        (['example.com'], 'https://evil.com', 'example.com', False),
        (['example.com'], 'https://evil.com', 'evil.com', False),
        (['[::1]'], 'http://[::1]:8000', '[::1]:8000', True),
        # ['*'] is no licence for foreign pages.
        (['*'], 'https://shop.example', 'shop.example', True),
        (['*'], 'https://evil.com', 'shop.example', False),
        (['*', 'evil.com'], 'https://evil.com', 'shop.example', True),
        (['*'], 'https://evil.com', None, False),
        ([], 'http://localhost:8000', 'localhost:8000', False),
        (['*'], 'null', '', False),
        (['*'], 'null', 'null', False),
    ],
)
def test_an_origin_is_allowed_where_its_host_is(settings, hosts, origin, host, allowed):
    settings.ALLOWED_HOSTS = hosts
    assert origin_allowed(origin, host) is allowed


def test_debug_allows_localhost_as_django_does(settings):
    settings.ALLOWED_HOSTS = []
    settings.DEBUG = True
    assert origin_allowed('http://localhost:8000', 'localhost:8000')
    assert origin_allowed('http://127.0.0.1:8000', '127.0.0.1:8000')
    assert not origin_allowed('http://evil.com', 'localhost:8000')


def test_allowed_origins_replace_allowed_hosts(settings):
    settings.ALLOWED_HOSTS = ['api.example.com']
    settings.SOCKETS = {'ALLOWED_ORIGINS': ['app.example.com']}
    assert origin_allowed('https://app.example.com', 'api.example.com')
    assert not origin_allowed('https://api.example.com', 'api.example.com')
    settings.SOCKETS = {'ALLOWED_ORIGINS': ['*']}
    assert origin_allowed('https://anyone.example', 'api.example.com')


@pytest.mark.parametrize(
    'origin, is_secure, allowed',
    [
        ('http://example.com', False, True),
        ('http://example.com', True, False),
        ('HTTP://example.com', True, False),
        ('ws://example.com', True, False),
        ('https://example.com', True, True),
        ('https://example.com', False, True),
    ],
)
def test_a_page_without_tls_is_foreign_where_we_have_it(settings, origin, is_secure, allowed):
    settings.ALLOWED_HOSTS = ['example.com']
    assert origin_allowed(origin, 'example.com', is_secure) is allowed
    settings.ALLOWED_HOSTS = ['*']
    assert origin_allowed(origin, 'example.com', is_secure) is allowed


def test_an_origin_that_is_named_as_a_whole_is_allowed_whatever_its_scheme_and_port(settings):
    settings.SOCKETS = {'ALLOWED_ORIGINS': ['example.com', 'http://localhost:3000', 'capacitor://App/']}
    assert origin_allowed('http://localhost:3000', 'localhost:8000', True)
    assert origin_allowed('capacitor://app', 'example.com')
    assert not origin_allowed('http://localhost:3001', 'localhost:8000')
    assert not origin_allowed('http://localhost', 'localhost')
    assert not origin_allowed('null', 'example.com')


@pytest.mark.parametrize('origin', ['null', 'file://'])
@pytest.mark.parametrize(
    'entries, allowed',
    [
        (['{}'], True),
        (['example.com', '{}'], True),
        # No wildcard is meant for them, and no host.
        (['*'], False),
        (['.'], False),
        (['.null', 'file', 'file:', 'http://null'], False),
        (['{}*', '*://', '*{}'], False),
        (['example.com'], False),
        ([], False),
        (None, False),
    ],
)
def test_an_origin_that_is_not_a_page_of_a_site_is_allowed_by_name_only(settings, origin, entries, allowed):
    settings.ALLOWED_HOSTS = ['*', 'null', 'file']
    settings.SOCKETS = {'ALLOWED_ORIGINS': entries and [entry.format(origin) for entry in entries]}
    for is_secure in (False, True):
        assert origin_allowed(origin, 'example.com', is_secure) is allowed
    # The name of one is no name of the other, nor of a host.
    for other in ('null', 'file://', 'http://null', 'https://file'):
        if other != origin and allowed:
            assert not origin_allowed(other, 'example.com')


@pytest.mark.parametrize('entry', ['file://', 'file:///', 'FILE://'])
def test_files_may_be_written_with_as_many_slashes_as_one_likes(settings, entry):
    settings.SOCKETS = {'ALLOWED_ORIGINS': [entry]}
    assert origin_allowed('file://', 'example.com') and origin_allowed('file:///', 'example.com')
    assert not origin_allowed('file://example.com', 'example.com') and not origin_allowed('null', 'example.com')


@pytest.mark.parametrize(
    'origins, origin, words',
    [
        (None, 'https://shop.example', ['add its host to ALLOWED_HOSTS; ', 'this setting replaces']),
        (
            ['a.example'],
            'https://shop.example',
            ["add its host to SOCKETS['ALLOWED_ORIGINS']; ", ' as it stands here.'],
        ),
        (None, 'null', ["SOCKETS['ALLOWED_ORIGINS'] as it stands here, and your own hosts", 'Any page in a sandbox']),
        (['*'], 'null', ["add it to SOCKETS['ALLOWED_ORIGINS'] as it stands here. "]),
        (None, 'file://', ["If it is an app of yours, add it to SOCKETS['ALLOWED_ORIGINS']", 'this setting replaces']),
        (['*'], 'capacitor://localhost', ["add it to SOCKETS['ALLOWED_ORIGINS'] as it stands here."]),
        (None, 'https://user@example.com', ['No browser sends']),
        (None, 'file://*', ['No browser sends']),
        (None, None, ['REQUIRE_ORIGIN']),
    ],
)
def test_a_refusal_says_what_would_allow_the_origin(settings, origins, origin, words):
    settings.SOCKETS = {'ALLOWED_ORIGINS': origins, 'REQUIRE_ORIGIN': True}
    assert not origin_allowed(origin, 'example.com')
    for word in words:
        assert word in remedy(origin)
    # And that it works.
    if 'No browser' not in words[0] and origin is not None:
        settings.SOCKETS = {'ALLOWED_ORIGINS': [*(origins or []), origin]}
        assert origin_allowed(origin, 'example.com') and can_match(origin)


@pytest.mark.parametrize(
    'entry, possible',
    [
        ('example.com', True),
        ('.example.com', True),
        ('[::1]', True),
        ('*', True),
        ('null', True),
        ('file://', True),
        ('file:///', True),
        ('http://localhost:3000', True),
        ('capacitor://localhost', True),
        ('https://example.com/', True),
        ('chrome-extension://abcdef', True),
        ('xn--bcher-kva.example', True),
        ('example.com:8000', False),
        ('*.example.com', False),
        ('file:', False),
        ('file://*', False),
        ('null*', False),
        ('https://*.example.com', False),
        ('https://example.com/path', False),
        ('https://user@example.com', False),
        ('https://example.com:443', False),
        ('http://', False),
        ('b\xfccher.example', False),
        ('', False),
        ('https:', False),
    ],
)
def test_an_entry_that_no_browser_sends_is_recognized(entry, possible):
    assert can_match(entry) is possible


def test_a_missing_origin_does_not_come_from_a_browser(settings):
    assert origin_allowed(None, 'example.com') is True
    settings.SOCKETS = {'REQUIRE_ORIGIN': True}
    assert origin_allowed(None, 'example.com') is False
    assert origin_allowed('', 'example.com') is False


@pytest.mark.parametrize(
    'proxies, peer, forwarded_for, ip',
    [
        (['192.0.2.1'], '192.0.2.1', '1.2.3.4:99', '1.2.3.4'),
        (['192.0.2.1'], '192.0.2.1', '[::1]:99', '::1'),
        (['192.0.2.1'], '192.0.2.1', '[2001:DB8::1]', '2001:db8::1'),
        (['192.0.2.1'], '192.0.2.1', '[::ffff:1.2.3.4]:99', '1.2.3.4'),
        (['192.0.2.1'], '192.0.2.1', '[fe80::1%eth0]', None),
        (['192.0.2.1'], '192.0.2.1:99', '1.2.3.4', '1.2.3.4'),
        (['192.0.2.1', '10.0.0.0/8'], '192.0.2.1', '6.6.6.6, 1.2.3.4:99, 10.0.0.1:80', '1.2.3.4'),
        # What is garbage is nobody's, and does not let what the client wrote before it count.
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, garbage', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6,', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, ,', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, unix:', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, 1.2.3.4%eth0', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, 1.2.3.4:', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, 1.2.3.4:port', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, [1.2.3.4', None),
        (['192.0.2.1'], '192.0.2.1', '6.6.6.6, 1.2.3.4 5.6.7.8', None),
        (['192.0.2.1'], '192.0.2.1', ' ', '192.0.2.1'),
        ([], '192.0.2.1', None, '192.0.2.1'),
        ([], '192.0.2.1', '203.0.113.9', '192.0.2.1'),
        ([], None, '203.0.113.9', None),
        (['192.0.2.1'], '192.0.2.1', '203.0.113.9', '203.0.113.9'),
        (['192.0.2.1'], '192.0.2.1', None, '192.0.2.1'),
        (['192.0.2.1'], '192.0.2.2', '203.0.113.9', '192.0.2.2'),
        (['192.0.2.0/24', '10.0.0.0/8'], '192.0.2.1', '6.6.6.6, 203.0.113.9, 10.1.2.3', '203.0.113.9'),
        (['192.0.2.0/24'], '192.0.2.1', '192.0.2.7', '192.0.2.7'),
        (['192.0.2.1'], '192.0.2.1', 'unknown', None),
        (['192.0.2.1'], '192.0.2.1', "'; DROP TABLE", None),
        (['unix'], None, '2001:DB8::0001', '2001:db8::1'),
        (['unix'], '192.0.2.1', '203.0.113.9', '192.0.2.1'),
        (['2001:db8::/32'], '2001:db8::5', '203.0.113.9', '203.0.113.9'),
        (['192.0.2.1'], '::ffff:192.0.2.1', '203.0.113.9', '203.0.113.9'),
    ],
)
def test_the_address_is_what_a_trusted_proxy_saw(settings, proxies, peer, forwarded_for, ip):
    settings.SOCKETS = {'TRUSTED_PROXIES': proxies}
    assert client_ip(peer, forwarded_for) == ip


@pytest.mark.parametrize(
    'value, ip',
    [
        ('203.0.113.9', '203.0.113.9'),
        (' 203.0.113.9:4711 ', '203.0.113.9'),
        ('[2001:db8::1]:4711', '2001:db8::1'),
        (None, '192.0.2.1'),
        ('', '192.0.2.1'),
        # One address, and no list: the left one may be the client's, and so may be the right one.
        ('6.6.6.6, 203.0.113.9', None),
        ('203.0.113.9, 192.0.2.1', None),
        ('unknown', None),
    ],
)
def test_a_header_of_one_address_counts_as_a_whole(settings, value, ip):
    settings.SOCKETS = {'TRUSTED_PROXIES': ['192.0.2.1'], 'CLIENT_ADDRESS_HEADER': 'X-Real-IP'}
    assert client_ip('192.0.2.1', value) == ip
    assert client_ip('192.0.2.2', value) == '192.0.2.2'


def test_proxy_headers_that_anyone_may_write_and_trusted_proxies_exclude_each_other(settings):
    settings.SOCKETS = {'TRUSTED_PROXIES': ['192.0.2.1']}
    with pytest.raises(CommandError, match='Leave out --proxy-headers'):
        call_command('runsockets', '--proxy-headers')
