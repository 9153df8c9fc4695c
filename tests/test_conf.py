import pytest

from sockets import conf


def test_a_setting_is_read_when_it_is_used(settings):
    assert conf.MAX_MESSAGE_SIZE == 1024 * 1024
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 5}
    assert conf.MAX_MESSAGE_SIZE == 5
    assert conf.SEND_TIMEOUT == 2
    settings.SOCKETS = {}
    assert conf.MAX_MESSAGE_SIZE == 1024 * 1024


def test_a_setting_that_is_asked_for_with_each_frame_is_found_once(settings):
    settings.SOCKETS = {'SEND_TIMEOUT': 5}
    assert 'SEND_TIMEOUT' not in vars(conf)
    assert conf.SEND_TIMEOUT == 5
    assert vars(conf)['SEND_TIMEOUT'] == 5
    settings.DEBUG = True
    assert vars(conf)['SEND_TIMEOUT'] == 5
    settings.SOCKETS = {}
    assert conf.SEND_TIMEOUT == 2


def test_an_unknown_setting_is_an_error_that_lists_the_settings():
    with pytest.raises(AttributeError, match='MAX_MESSAGE_SIZE'):
        conf.MAX_MESAGE_SIZE
