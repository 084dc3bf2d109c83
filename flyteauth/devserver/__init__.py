"""
The embedded control plane: a Flyte control plane with its own authorization server.

``model`` holds all behaviour and is pure; ``app`` puts it behind ASGI; ``serve`` puts that on a
loopback port, inside a process or as ``flyteauth devserver``. For development, demonstrations
and tests: it accepts any user name and must never face a network.
"""
