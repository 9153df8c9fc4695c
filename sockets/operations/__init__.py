"""What commands and pages print."""
