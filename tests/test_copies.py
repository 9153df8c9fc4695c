"""Copies of model instances, as frames get them."""

import datetime
import threading

import pytest
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models.signals import post_init

from sockets.connection import copies
from sockets.models import Socket


class Notes(models.Field):
    """Values that can be changed, such as those of a JSONField."""


class Plain(models.Model):
    name = models.TextField()
    notes = Notes()

    class Meta:
        app_label = 'copies'


class Tracking(models.Model):
    """Remembers what it was loaded with, as many models do."""

    name = models.TextField()

    class Meta:
        app_label = 'copies'

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loaded_with = {'name': self.name}


def loaded(model, **values):
    return model.from_db('default', list(values), list(values.values()))


def test_a_copy_has_the_values_and_is_as_if_loaded():
    user = loaded(get_user_model(), id=3, username='alice', date_joined=datetime.datetime(2020, 1, 1))
    original = copies.original(user)
    first, second = original.copy(), original.copy()
    assert type(original) is copies.Values
    assert first == second == user and first is not second and vars(first) is not vars(second)
    assert first.username == 'alice' and 'password' in first.get_deferred_fields()
    assert (first._state.db, first._state.adding) == ('default', False)


def test_values_that_can_be_changed_are_copied_with_each():
    plain = loaded(Plain, id=1, name='a', notes={'seen': [1]})
    original = copies.original(plain)
    plain.notes['seen'].append(2)
    first = original.copy()
    first.notes['seen'].append(3)
    assert original.copy().notes == {'seen': [1]}


def test_a_model_that_does_more_when_it_is_loaded_is_copied_whole():
    tracking = loaded(Tracking, id=1, name='a')
    original = copies.original(tracking)
    first = original.copy()
    first.loaded_with['name'] = 'b'
    assert type(original) is copies.Pickled
    assert original.copy().loaded_with == {'name': 'a'} and original.copy()._state is not first._state


def test_so_is_one_whose_loading_others_listen_to(monkeypatch):
    def note(instance, **kwargs):
        instance.noted = True

    post_init.connect(note, sender=Plain)
    try:
        assert copies.original(loaded(Plain, id=1, name='a', notes=())).copy().noted
    finally:
        post_init.disconnect(note, sender=Plain)


def test_an_attribute_that_is_no_field_goes_along():
    plain = loaded(Plain, id=1, name='a', notes=())
    plain.annotated = [1]
    copy = copies.original(plain).copy()
    assert copy.annotated == [1] and copy.annotated is not plain.annotated


def test_related_and_prefetched_objects_stay_behind():
    row = loaded(Socket, id=1, user_id=3)
    row.user = loaded(get_user_model(), id=3, username='alice')
    row._prefetched_objects_cache = {'memberships': []}
    copy = copies.original(row).copy()
    assert copy.user_id == 3 and '_prefetched_objects_cache' not in vars(copy)
    assert vars(copy).keys() == {'id', 'user_id', '_state'} and not vars(copy._state).get('fields_cache')


def test_what_cannot_be_copied_is_a_type_error():
    for value in (threading.Lock(), [threading.Lock()]):
        with pytest.raises(TypeError, match='Plain cannot be copied'):
            copies.original(loaded(Plain, id=1, name='a', notes=value))


@pytest.mark.django_db
def test_a_copy_that_is_saved_in_another_database_is_saved_as_it_is(alice):
    found = copies.original(alice).copy()
    get_user_model().objects.all().delete()
    copies.renew(found, 'other')
    with pytest.raises(get_user_model().DoesNotExist, match='User 1?.* has been deleted'):
        copies.renew(copies.original(alice).copy(), alice._state.db)
