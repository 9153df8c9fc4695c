from django.contrib.auth import get_user_model, login, logout
from django.http import HttpResponse

from sockets import RoutedSocketHandler
from sockets.routing import route_class
from tests.paths import re_path


class Handler(RoutedSocketHandler):
    routes = (*RoutedSocketHandler.routes, ('WHO', 'on_who'))

    def on_who(self, content):
        return {'type': 'YOU', 'name': self.user.get_username()}


def log_in(request):
    login(request, get_user_model().objects.get(), backend='django.contrib.auth.backends.ModelBackend')
    return HttpResponse('welcome')


def log_out(request):
    logout(request)
    return HttpResponse('bye')


urlpatterns = [re_path('^in/$', log_in), re_path('^out/$', log_out)]
routing = [route_class(Handler, path='^/ws/$')]
