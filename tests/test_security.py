import pytest

from sockets.security import client_ip, origin_allowed


@pytest.mark.parametrize('hosts, origin, host, allowed', [
    (['example.com'], 'https://example.com', 'example.com', True),
    (['example.com'], 'https://example.com:8443', 'example.com:8443', True),
    (['example.com'], 'https://EXAMPLE.com', 'example.com', True),
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
])
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


def test_a_missing_origin_is_no_browser(settings):
    assert origin_allowed(None, 'example.com') is True
    settings.SOCKETS = {'REQUIRE_ORIGIN': True}
    assert origin_allowed(None, 'example.com') is False
    assert origin_allowed('', 'example.com') is False


@pytest.mark.parametrize('proxies, peer, forwarded_for, ip', [
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
])
def test_the_address_is_what_a_trusted_proxy_saw(settings, proxies, peer, forwarded_for, ip):
    settings.SOCKETS = {'TRUSTED_PROXIES': proxies}
    assert client_ip(peer, forwarded_for) == ip
