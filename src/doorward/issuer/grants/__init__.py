"""What tokens are made for: one grant, one file. Each is a function of the desk, the app that asks, and its form."""
