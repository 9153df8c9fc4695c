"""What ``manage.py check`` says about views and the sockets beside them. docs/checks.md is the list."""

from django.conf import settings
from django.core.checks import Warning

from ..access import guards


def check(routers, handlers):
    """Return the findings about the views of ``routers``; ``handlers`` are those in the routing."""
    views = list(_views(routers, handlers))
    return [*_open_sockets(views), *_overridden(views, handlers)]


def _views(routers, handlers):
    """Yield each view whose socket is routed, its router, and the handler classes of the routing that serve it."""
    for router in sorted(routers, key=lambda router: router.view.__qualname__):
        serving = [handler for handler in handlers if any(issubclass(part, router.Handler) for part in _parts(handler))]
        views = [router.view] if serving else []
        for view in views:
            # A subclass with a router of its own under that name has its own Handler.
            views += [
                sub for sub in view.__subclasses__() if getattr(sub, router.name, None) is router and (sub not in views)
            ]
            yield view, router, serving


def _parts(handler):
    """Yield the handler class, and those of its streams."""
    yield handler
    for stream in getattr(handler, '_streams', {}).values():
        yield from _parts(stream)


def _open_sockets(views):
    """Find sockets that ask for less than the page beside them."""
    in_urls = _decorated_views()
    for view, router, serving in views:
        if router.guard is False:
            continue
        demands = guards.Demands(view)
        for callback in in_urls.get(view, ()):
            demands.look_at(callback)
        if not demands or all(demands.are_met_by(handler) for handler in serving):
            continue
        base = '' if router.base is None else f'handler={router.base.__name__}, '
        if view is not router.view:
            if demands.are_within(guards.Demands(router.view)):
                continue  # The finding is about that one.
            remedy = f"Give it one of its own: {router.name} = SocketRouter(handler={router.view.__name__}.{router.name}.Handler, guard='view')."
        elif demands.unknown:
            remedy = (
                f'Ask for the same in a function with @{router.name}.connect, which closes with socket.close(4403), and write '
                f'{router.name} = SocketRouter({base}guard=False).'
            )
        else:
            remedy = f"Write {router.name} = SocketRouter({base}guard='view'), or guard=False if that is meant."
            if in_urls.get(view):
                remedy += (
                    ' What is around the view in a URLconf has to go to the class: '
                    "@method_decorator(login_required, name='dispatch')."
                )
        yield Warning(
            'The page of {} asks for {}, and its socket does not.'.format(
                view.__name__, ', '.join(dict.fromkeys([*demands.names, *demands.unknown]))
            ),
            obj=view,
            hint=remedy,
            id='sockets.W016',
        )


def _decorated_views():
    """Return the callbacks of the URLconf that have a decorator of Django's around a class-based view, by its class."""
    from django.urls import get_resolver

    # A project of websockets alone needs no URLconf.
    found, waiting = {}, [get_resolver()] if getattr(settings, 'ROOT_URLCONF', None) else []
    while waiting:
        entry = waiting.pop()
        try:
            waiting += getattr(entry, 'url_patterns', ())
        except Exception:
            continue  # Django's own check of the URLconf says what is wrong with it.
        callback = getattr(entry, 'callback', None)
        view = getattr(callback, 'view_class', None)
        if view is not None and guards.is_guarded(callback):
            found.setdefault(view, []).append(callback)
    return found


def _overridden(views, handlers):
    """Find functions of a subclass that look like those of its socket, and are not called."""
    found = [(view, router, router.Handler) for view, router, _ in views]
    found += [(handler, None, handler) for handler in handlers]
    for view, router, handler in found:
        for name, function, klass in guards.overridden(view, handler):
            if router:
                hint = (
                    f'Decorate it with the @{router.name}.route(...) of a router of its own, {router.name} = SocketRouter(handler={klass.__name__}.{router.name}'
                    '.Handler). If it is something else, give it another name.'
                )
            else:
                hint = f"Name it in the routes of {klass.__name__}, as in ('TYPE', {name!r})."
            yield Warning(
                f'{view.__name__}.{name}() is not what its socket calls: that is {function.__qualname__}().',
                hint=hint,
                obj=view,
                id='sockets.W017',
            )
