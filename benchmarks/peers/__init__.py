"""
Us beside the peers: the same work, against the same server, in one run, in turns.

``environments.py`` says which peers, and at which versions; each lives in an environment of its
own. ``adapters`` has one program for each, which says what the library can do and does what it is
told (``program.py``); ``peer.py`` is such a program seen from outside. ``rows`` has what is
compared, and ``comparison.py`` how that is shown.
"""
