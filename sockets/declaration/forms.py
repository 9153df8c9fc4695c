"""Forms of every kind: what they ask for besides the content, and which of their functions would never run."""

import inspect

from django.utils.functional import SimpleLazyObject

from ..execution import coroutines

# What a form may name as an argument, or find in its context.
_ASKED = ('user', 'socket', 'request')

# Methods that validate, of Django's forms and fields, of REST framework's and of pydantic's models.
_METHODS = (
    'is_valid',
    'full_clean',
    'clean',
    'to_python',
    'validate',
    'run_validation',
    'run_validators',
    'to_internal_value',
    'model_validate',
    'parse_obj',
    'model_post_init',
)
_PREFIXES = ('clean_', 'validate_')


def asks_for(form):
    """Return which of ``user``, ``socket`` and ``request`` ``form`` takes by name, and ``context`` if it takes that."""
    if form is None:
        return frozenset()
    if _is_serializer(form):
        return _named(form).union(['context'])
    validate = model_validator(form)
    if validate is not form:
        return _named(validate) & {'context'}
    return _named(form) & frozenset(_ASKED)


def arguments(asks, socket):
    """Return the arguments for a form that ``asks`` for them, of the connection ``socket``, which may be ``None``."""
    found = {name: socket if name == 'socket' else getattr(socket, name, None) for name in _ASKED if name in asks}
    if 'context' in asks:
        # Lazy: nothing is read from the database before it is used. REST framework's CurrentUserDefault asks the request.
        found['context'] = (
            {'socket': socket}
            if socket is None
            else {
                'socket': socket,
                'user': SimpleLazyObject(lambda: socket.user),
                'request': SimpleLazyObject(lambda: socket.request),
            }
        )
    return found


def model_validator(form):
    """Return what validates for a pydantic model, 2 or 1; ``form`` itself if it is not a model."""
    return getattr(form, 'model_validate', None) or getattr(form, 'parse_obj', None) or form


def check(form):
    """Raise ``TypeError`` if ``form``, or a part of it, would return a coroutine in place of a valid result."""
    if form is None:
        return
    if not isinstance(form, type):
        return coroutines.check(form)
    _check_class(form, form.__name__)
    fields = {**getattr(form, 'base_fields', {}), **getattr(form, '_declared_fields', {})}
    for name, field in fields.items():
        _check_field(field, f'{form.__name__}.{name}')
    for function in _of_pydantic(form):
        coroutines.refuse(function, '{}.{}()'.format(form.__name__, getattr(function, '__name__', function)))


def has_not_run(result):
    """Return the name of what is a coroutine in what a form returned, or ``None``."""
    if inspect.isawaitable(result):
        # A clean() or validate() has returned it, perhaps through a decorator that hides that it is async.
        return 'all'
    if isinstance(result, (list, tuple)):
        return next((name for name in map(has_not_run, result) if name is not None), None)
    values = result if isinstance(result, dict) else getattr(result, '__dict__', {})
    for name, value in values.items():
        if inspect.isawaitable(value) or isinstance(value, (dict, list, tuple)) and has_not_run(value) is not None:
            return name
    return None


def _is_serializer(form):
    return hasattr(form, 'is_valid') and hasattr(form, 'run_validation')


def _named(form):
    """Return the names of the arguments that ``form`` takes by name, but for the first one of a function."""
    if not isinstance(form, type):
        return _names(form, skip=0 if inspect.ismethod(form) and isinstance(form.__self__, type) else 1)[0]
    found = frozenset()
    for cls in form.__mro__:
        if '__init__' not in vars(cls):
            continue
        names, passes_on = _names(vars(cls)['__init__'], skip=1)
        found |= names
        # What it does not name goes to the next one.
        if not passes_on:
            break
    return found & frozenset(_ASKED)


def _names(function, skip):
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return frozenset(), False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:skip]
    return (
        frozenset(
            p.name for p in parameters if p not in positional and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _check_class(cls, name):
    for method in dir(cls):
        if method in _METHODS or method.startswith(_PREFIXES):
            function = inspect.getattr_static(cls, method)
            function = getattr(function, '__func__', function)
            if callable(function):
                coroutines.refuse(function, f'{name}.{method}()')


def _check_field(field, name):
    _check_class(type(field), name)
    for validator in vars(field).get('validators', vars(field).get('_validators')) or ():
        coroutines.refuse(validator, f'The validator {validator!r} of {name}')
    # What a list is made of, and the fields of a serializer in a serializer.
    child = vars(field).get('child')
    for inner in [child] if child is not None else getattr(type(field), '_declared_fields', {}).values():
        _check_field(inner, name)


def _of_pydantic(model):
    """Yield the functions that validate for a pydantic model, 2 or 1."""
    decorators = getattr(model, '__pydantic_decorators__', None)
    for group in ('validators', 'field_validators', 'root_validators', 'model_validators'):
        yield from (entry.func for entry in getattr(decorators, group, {}).values())
    for field in dict(getattr(model, 'model_fields', None) or {}).values():
        yield from (entry.func for entry in getattr(field, 'metadata', ()) if callable(getattr(entry, 'func', None)))
    for group in dict(getattr(model, '__validators__', None) or {}).values():
        yield from (entry.func for entry in group if hasattr(entry, 'func'))
