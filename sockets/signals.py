"""What a project can listen to. The sender is the handler class, or ``Socket`` where no handler is running."""
from django.dispatch import Signal

# socket: the row, just created; the connection has been accepted.
socket_connected = Signal()

# socket: the row, just deleted (its values are still there); code: the close code, or None when it is not known.
socket_disconnected = Signal()
