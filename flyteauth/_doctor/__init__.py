"""What keeps a login from working, found out by looking: no browser, no question, no login."""
