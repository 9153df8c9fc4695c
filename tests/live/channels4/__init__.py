"""What crosses a process on Channels 4: servers as people start them, and the layers between them."""
