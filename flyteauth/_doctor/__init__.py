"""What keeps a login from working, found out by looking: no browser, no login, nothing stored."""
