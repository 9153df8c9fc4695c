"""What sockets run on."""
