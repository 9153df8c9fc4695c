"""Copies of model instances that share nothing that can change. A frame may do with its copy what it likes."""

import copy
import datetime
import decimal
import functools
import pickle
import uuid

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model
from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init

# What a copy may share, because nobody can change it.
_UNCHANGING = frozenset(
    [
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        decimal.Decimal,
        uuid.UUID,
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
    ]
)

# That of users sets a _password, in Django 1.11 and 2.0.
_INITS = Model.__init__, AbstractBaseUser.__init__


def original(instance):
    """Return what makes copies of ``instance``: its ``copy()`` returns a new one, without related or prefetched objects.

    ``TypeError`` for an instance that cannot be copied, such as one that holds a lock.
    """
    left_out = _left_out(type(instance))
    values = {name: value for name, value in vars(instance).items() if name not in left_out}
    try:
        return (Values if _is_plain(instance, values) else Pickled)(type(instance), values, instance._state.db)
    except Exception as error:
        # Whatever copying an author's value may raise.
        raise TypeError(f'{type(instance).__name__} cannot be copied: {error}') from error


@functools.lru_cache(maxsize=None)
def cache_name(field):
    """Return the name under which an instance keeps what the relation ``field`` leads to."""
    # Django 5.1 has made it a property.
    return field.cache_name if hasattr(field, 'cache_name') else field.get_cache_name()


def _left_out(model):
    # Django 1.11 keeps related objects among the other attributes.
    return {
        '_state',
        '_prefetched_objects_cache',
        *(cache_name(field) for field in model._meta.concrete_fields if field.is_relation),
    }


@functools.lru_cache(maxsize=None)
def _names(model):
    return {'_password', *(field.attname for field in model._meta.concrete_fields)}


def _is_plain(instance, values):
    """Whether the values of the fields are all that there is to ``instance``."""
    model = type(instance)
    return (
        model.__init__ in _INITS
        and model.__new__ is Model.__new__
        and model.from_db.__func__ is Model.from_db.__func__
        and model.__setstate__ is Model.__setstate__
        and not pre_init.has_listeners(model)
        and not post_init.has_listeners(model)
        and values.keys() <= _names(model)
    )


class Values:
    """The original of an instance that is made of the values of its fields: a copy costs a microsecond."""

    __slots__ = ('model', 'values', 'changing', 'database')

    def __init__(self, model, values, database):
        self.model, self.database = model, database
        # Such as those of a JSONField.
        self.changing = [name for name, value in values.items() if type(value) not in _UNCHANGING]
        self.values = self._copied(values)

    def copy(self):
        return _made(self, self._copied(self.values) if self.changing else self.values)

    def known(self):
        """Return the values that copies begin with, not to be changed."""
        return self.values

    def __reduce__(self):
        # A copy that goes into a cache or a task leaves this behind.
        return type(None), ()

    def _copied(self, values):
        return {**values, **{name: copy.deepcopy(values[name]) for name in self.changing}}


class Pickled:
    """The original of an instance that holds more than that: copied as Django's caches do it, ten times as slow."""

    __slots__ = ('model', 'state', 'database')

    def __init__(self, model, values, database):
        self.model, self.database = model, database
        self.state = pickle.dumps(values, pickle.HIGHEST_PROTOCOL)

    def copy(self):
        return _made(self, self.known())

    def known(self):
        """Return the values that copies begin with."""
        return pickle.loads(self.state)

    __reduce__ = Values.__reduce__


def _made(original, values):
    model = original.model
    instance = model.__new__(model)
    instance.__dict__.update(values)
    instance._state = state = ModelState()
    state.db, state.adding = original.database, False
    state.copied_from = original
    return instance


def renew(instance, using, update_fields=None):
    """Read again what nobody has changed in ``instance``, which is about to be saved, if it is a copy.

    Else it would take back what others have written since: a password, an ``is_active``. ``DoesNotExist`` if it has been
    deleted, and would come back.
    """
    original = vars(instance._state).pop('copied_from', None)
    if original is None or original.database != using:
        return
    known, values = original.known(), vars(instance)
    key = instance._meta.pk.attname
    if known[key] != values[key]:
        # Another one is made of it.
        return
    names = [
        field.attname
        for field in instance._meta.concrete_fields
        if not field.primary_key
        and (update_fields is None or field.name in update_fields or field.attname in update_fields)
        and field.attname in known
        and field.attname in values
        and _are_equal(known[field.attname], values[field.attname])
    ]
    if names:
        rows = type(instance)._base_manager.using(using).filter(pk=instance.pk)
        current = rows.values(*names).first()
        if current is None:
            raise instance.DoesNotExist(f'{type(instance).__name__} {instance.pk} has been deleted.')
        for name, value in current.items():
            if not _are_equal(value, values[name]):
                setattr(instance, name, value)


def _are_equal(one, other):
    try:
        return bool(one == other)
    except Exception:
        # What an author's field makes may not be comparable.
        return False
