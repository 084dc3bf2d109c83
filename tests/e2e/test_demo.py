"""``flyteauth demo``: every way to log in, told in plain lines."""

from __future__ import annotations

import re

from .conftest import Home


def test_the_demo_logs_in_every_way_on_both_backends_and_says_so(home: Home) -> None:
    ended = home.run("demo", deadline=30, PYTHONIOENCODING="ascii")
    assert (ended.status, ended.err) == (0, ""), ended
    # The lines below the titles are what this encoding cannot show.
    _, asyncio, trio = re.split(r"^(?:asyncio|trio)\n\?+\n", ended.out, flags=re.MULTILINE)
    for story in (asyncio, trio):
        for way in ("PKCE", "device flow", "API key"):
            assert re.search(rf"^  {way} ", story, re.MULTILINE)
        assert story.count("logged in as ") == 3
        assert story.count("an authorised call: ") == 6
        assert story.count("refreshed, and nobody noticed") == 3
        assert story.count("logged out, tokens revoked") == 3
    assert all(len(line) <= 100 for line in ended.out.splitlines())
    assert home.stored() == {}
