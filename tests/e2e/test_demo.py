"""``flyteauth demo``: every way to log in, told in plain lines."""

from __future__ import annotations

import re
import sys

from .conftest import Home

PERSON = f"{sys.executable} -m flyteauth.devserver.visitor %s"
YOURS = "your browser opens the login page; log in there, and allow"


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


def test_with_browser_the_first_login_is_a_persons(home: Home) -> None:
    ended = home.run("demo", "--browser", deadline=30, BROWSER=PERSON)
    assert (ended.status, ended.err) == (0, ""), ended
    assert ended.out.count(YOURS) == 1
    assert ended.out.index("asyncio") < ended.out.index(YOURS) < ended.out.index("trio")
    assert ended.out.count("a program opens the login page") == 1  # on trio
    assert "no browser can be opened" not in ended.out
    assert re.search(r"^http://\S+/oauth2/authorize\?\S+$", ended.out, re.MULTILINE)
    assert ended.out.count("logged in as ") == 6


def test_where_no_browser_can_be_opened_the_demo_says_so_and_goes_on(home: Home) -> None:
    ended = home.run("demo", "--browser", deadline=30, BROWSER="w3m %s")
    assert (ended.status, ended.err) == (0, ""), ended
    assert YOURS not in ended.out
    assert ended.out.count("no browser can be opened here") == 1
    assert ended.out.count("a program opens the login page, and allows") == 2
    assert ended.out.count("logged in as ") == 6


def test_who_denies_in_the_browser_is_told_so_in_one_line(home: Home) -> None:
    program = (
        "import sys; from flyteauth.devserver.visitor import visit; visit(sys.argv[1], 'deny')"
    )
    script = home.write("deny.py", program)
    ended = home.run("demo", "--browser", deadline=30, BROWSER=f"{sys.executable} {script} %s")
    assert ended.status == 1, ended
    assert ended.err.count("\n") == 1, ended.err
    assert "access_denied" in ended.err
