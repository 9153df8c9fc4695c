"""Who may do what: authentication, origins, limits, and how a right ends."""
