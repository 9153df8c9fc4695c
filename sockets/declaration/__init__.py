"""What a project declares, looked at when it is imported."""
