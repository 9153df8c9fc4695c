"""The pages of the chat, and the websocket that lives beside one of them."""
import random
import re

from django.contrib import messages
from django.contrib.auth.mixins import UserPassesTestMixin
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.utils import timezone
from django.views.generic import FormView, TemplateView

from sockets import SocketRouter
from sockets.exceptions import FrameError
from sockets.messages import INVALID_CONTENT, UNKNOWN_TYPE
from sockets.models import Socket

from .forms import AnnounceForm, EnterForm
from .handlers import PresenceHandler, name_of, people_at

ROOMS = ('lobby', 'django', 'tea')
MAX_TEXT = 500


class Home(FormView):
    """Choose a name and a room."""

    template_name = 'chat/home.html'
    form_class = EnterForm

    def get_initial(self):
        return {'name': self.request.session.get('name', ''), 'room': self.request.GET.get('room', ROOMS[0])}

    def get_form_kwargs(self):
        return {**super().get_form_kwargs(), 'user': self.request.user}

    def get_context_data(self, **kwargs):
        rooms = [(room, len(set(people_at(reverse('room', args=[room]))))) for room in ROOMS]
        return super().get_context_data(
            rooms=rooms, name=name_of(self.request.user, self.request.session), **kwargs)

    def form_valid(self, form):
        if 'name' in form.cleaned_data:
            # The socket finds it again: its session is the one of the page.
            self.request.session['name'] = form.cleaned_data['name']
        return redirect('room', room=form.cleaned_data['room'])


class Room(TemplateView):
    """A room: its page, and the socket at the same path."""

    template_name = 'chat/room.html'
    socket = SocketRouter(handler=PresenceHandler)

    def get(self, request, *args, **kwargs):
        if not name_of(request.user, request.session):
            return redirect('{}?room={}'.format(reverse('home'), kwargs['room']))
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs):
        return super().get_context_data(
            name=name_of(self.request.user, self.request.session), max_text=MAX_TEXT, **kwargs)

    @socket.connect
    def on_connect(socket, message, room):
        socket.send_action('NOTE', text='Welcome to {}, {}.'.format(room, socket.name))
        # A second tab is no second arrival.
        if people_at(socket.path).count(socket.name) == 1:
            Socket.objects.filter(path=socket.path).send_action('JOINED', name=socket.name)

    @socket.disconnect
    def on_disconnect(socket):
        # The row is deleted by now, so no queryset finds it; its user and session are still at hand.
        if socket.name not in people_at(socket.path):
            Socket.objects.filter(path=socket.path).send_action('LEFT', name=socket.name)

    @socket.route('SAY')
    def say(socket, content):
        text = content.get('text')
        text = text.strip() if isinstance(text, str) else ''
        if not 1 <= len(text) <= MAX_TEXT:
            raise FrameError(INVALID_CONTENT, 'A message has 1 to {} characters.'.format(MAX_TEXT))
        Socket.objects.filter(path=socket.path).send_json({
            'type': 'SAID', 'name': socket.name, 'text': text, 'at': timezone.now()})

    @socket.route(re.compile(r'/d([1-9][0-9]{0,2})$'))
    def roll(socket, content):
        sides = int(content['type'][len('/d'):])
        Socket.objects.filter(path=socket.path).send_action('NOTE', text='{} rolls {} of {}.'.format(
            socket.name, random.randint(1, sides), sides))

    @socket.default_route
    def unknown(socket, content):
        raise FrameError(UNKNOWN_TYPE, 'This room does not know {!r:.40}. Try /d6 or /d20.'.format(
            content.get('type')))


class Announce(UserPassesTestMixin, FormView):
    """Tell everyone in every room: any code of the server can push, this is an ordinary HTTP view."""

    template_name = 'chat/announce.html'
    form_class = AnnounceForm
    success_url = reverse_lazy('announce')

    def test_func(self):
        return self.request.user.is_staff

    def form_valid(self, form):
        told = Socket.objects.send_action('ANNOUNCED', text=form.cleaned_data['text'])
        messages.success(self.request, 'Handed to {} open pages.'.format(told))
        return super().form_valid(form)
