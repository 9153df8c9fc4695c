"""A site whose users have no column ``is_active``, and whose sessions are of an app of its own."""
