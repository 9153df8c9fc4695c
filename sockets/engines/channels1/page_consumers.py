"""Consumers of pages, which stop when the client has left: in the process that holds it, or in a worker's."""

import logging
import time

from channels.handler import AsgiHandler, AsgiRequest, ViewConsumer
from channels.signals import worker_ready
from channels.staticfiles import StaticFilesConsumer, StaticFilesHandler

from ...execution import thread_state
from .pages import ClientLeft, servers

logger = logging.getLogger('sockets')

# A worker of another process asks the page's server after so many chunks, bytes or seconds whether it has sent them.
UNANSWERED, UNANSWERED_SIZE, ASK_INTERVAL = 64, 4 * 1024 * 1024, 1


class PageRequest(AsgiRequest):
    """A request whose path begins with the script name, as everywhere in Django, whether or not a proxy has taken it off.

    Channels takes it off where it only looks so: with ``/shop``, of ``/shopping/``; with ``/``, of all.
    """

    def __init__(self, message):
        super().__init__(message)
        prefix, path = self.script_name.rstrip('/'), message['path']
        if prefix and (path == prefix or path.startswith(prefix + '/')):
            self.path_info = path[len(prefix) :] or '/'
        else:
            self.path, self.path_info = prefix + path, path
        self.META['PATH_INFO'] = self.path_info


class _ClosesResponses:
    """A handler that closes its responses, and so their generators, also if they are not sent completely."""

    @classmethod
    def encode_response(cls, response):
        try:
            yield from super().encode_response(response)
        except BaseException:
            response.close()
            raise


class PageHandler(_ClosesResponses, AsgiHandler):
    request_class = PageRequest


class StaticFilesPageHandler(_ClosesResponses, StaticFilesHandler):
    request_class = PageRequest

    def get_response(self, request):
        # STATIC_URL may have the prefix or not.
        if self._should_handle(request.message['path']):
            request.path = request.message['path']
        return super().get_response(request)


class PageConsumer(ViewConsumer):
    """Channels' consumer for pages, which stops when the client has left and tells it when the view fails half-way."""

    handler_class = PageHandler

    def __call__(self, message):
        message.content['root_path'] = thread_state.script_name_of(message.content) or ''
        server = servers.get(message.reply_channel.name.partition('!')[0] + '!')
        transfer = _Remote(message) if server is None else _Local(message, server)
        replies = self.handler(message)
        sent = 0
        try:
            for reply in replies:
                has_body = message.get('method') != 'HEAD' and reply.get('status') not in (204, 304)
                if not has_body:
                    reply.update(content=b'', more_content=False)
                transfer.send(dict(reply, order=sent))
                sent += 1
                if not has_body:
                    # The rest is not sent, and might be endless.
                    break
        except ClientLeft:
            logger.debug('The client of %s has left', message.reply_channel.name)
        except BaseException:
            # The worker logs it.
            transfer.fail(sent)
            raise
        finally:
            # A response that was not sent completely is closed here.
            replies.close()


class StaticFilesPageConsumer(PageConsumer):
    handler_class = StaticFilesPageHandler


class _Transfer:
    """Sends the chunks of a page to its client."""

    def __init__(self, message):
        self.channel = message.reply_channel
        self.layer = message.channel_layer

    def fail(self, sent):
        """Tell the client that the view raised after ``sent`` chunks."""
        try:
            self.send(
                {'order': sent, 'broken': True}
                if sent
                else {'status': 500, 'headers': [(b'Content-Type', b'text/plain')], 'content': b'Internal Server Error'}
            )
        except ClientLeft:
            pass


class _Local(_Transfer):
    """To a connection of this process: a chunk waits until the client has taken those before it."""

    def __init__(self, message, server):
        super().__init__(message)
        self.requests = server.reply_protocols

    def send(self, reply):
        request = self.requests.get(self.channel.name)
        if request is None:
            raise ClientLeft(self.channel.name)
        request.wait_for_room()
        while self.channel.name in self.requests:
            try:
                return self.channel.send(reply, immediately=True)
            except self.layer.ChannelFull:
                time.sleep(0.05)
        raise ClientLeft(self.channel.name)


class _Remote(_Transfer):
    """To a connection of another process, which is asked now and then whether the client is still there."""

    def __init__(self, message):
        super().__init__(message)
        self.answers = None
        self.begin()

    def begin(self):
        self.since, self.chunks, self.size = time.monotonic(), 0, 0

    def send(self, reply):
        begun = time.monotonic()
        self.chunks += 1
        self.size += len(reply.get('content', b''))
        # A view that is ahead of its client fills the layer. For a page that is short or quick, nothing is asked.
        is_question = reply.get('more_content') and (
            self.chunks >= UNANSWERED or self.size >= UNANSWERED_SIZE or begun - self.since >= ASK_INTERVAL
        )
        if is_question:
            self.answers = self.answers or self.layer.new_channel('sockets.page?')
            reply['answer_to'] = self.answers
        while True:
            try:
                self.channel.send(reply, immediately=True)
                break
            except self.layer.ChannelFull:
                self.wait(begun, 0.05)
        if is_question:
            while True:
                channel, answer = self.layer.receive([self.answers])
                if channel is not None:
                    break
                self.wait(begun, 0.002)
            if not answer['is_there']:
                raise ClientLeft(self.channel.name)
            self.begin()

    def wait(self, begun, seconds):
        """Wait for the server of the client; ``ClientLeft`` if it has done nothing for ``expiry`` seconds."""
        if time.monotonic() - begun > self.layer.expiry:
            raise ClientLeft(self.channel.name)
        time.sleep(seconds)


def use_page_consumers(sender, **kwargs):
    """Have a worker serve pages this way, unless its routing names a consumer of its own."""
    ours = {ViewConsumer: PageConsumer, StaticFilesConsumer: StaticFilesPageConsumer}
    for entry in sender.channel_layer.router.root.routing:
        consumer = ours.get(type(getattr(entry, 'consumer', None)))
        if consumer is not None:
            entry.consumer = consumer()


def install():
    """Have Channels' workers serve their pages this way."""
    worker_ready.connect(use_page_consumers, dispatch_uid='sockets.pages')
