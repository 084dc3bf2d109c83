"""The folder that a control plane keeps, and what a restart finds in it."""

from __future__ import annotations

import sqlite3
import ssl
import stat
from pathlib import Path

import httpx
import pytest

from flyteauth.devserver.data import Data, DataError
from flyteauth.devserver.folders import ALIVE
from flyteauth.devserver.serve import Running, ServeError, serving
from flyteauth.devserver.settings import Settings
from flyteauth.devserver.shelves import Thing


def test_what_is_kept_comes_back_in_its_order(tmp_path: Path) -> None:
    data = Data(tmp_path / "new" / "folder")
    data.keep([Thing("a", "x", b"1"), Thing("b", "y", b"\x00\xff"), Thing("a", "z", b"")])
    data.keep([Thing("a", "x", b"2"), Thing("b", "y", None), Thing("b", "never", None)])
    data.keep_note("seed", b"s")
    data.close()
    again = Data(tmp_path / "new" / "folder")
    assert again.things() == [Thing("a", "x", b"2"), Thing("a", "z", b"")]
    assert (again.note("seed"), again.note("other")) == (b"s", None)
    again.close()


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    Data(tmp_path / "new").close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "state.db").stat().st_mode) == 0o600


def test_all_of_a_change_is_kept_or_nothing(tmp_path: Path) -> None:
    data = Data(tmp_path)
    with pytest.raises(sqlite3.Error):
        data.keep([Thing("a", "x", b"1"), Thing("a", "y", object())])  # type: ignore[arg-type]
    assert data.things() == []
    data.close()


def test_two_cannot_have_it_at_once(tmp_path: Path) -> None:
    data = Data(tmp_path)
    with pytest.raises(DataError, match="is in use by another control plane; stop that one"):
        Data(tmp_path)
    data.close()
    Data(tmp_path).close()


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like a file" * 9])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(DataError, match="is not ours .*; choose another --data"):
        Data(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == content


def test_another_version_is_not_ours(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(DataError, match=r"is not ours \(version 99"):
        Data(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a directory; check the path"):
        Data(tmp_path / "file" / "folder")
    with pytest.raises(ServeError, match="check the path"), serving(data=tmp_path / "file" / "x"):
        raise AssertionError


def test_what_could_not_be_written_is_said_and_written_with_the_next_change(
    tmp_path: Path,
) -> None:
    with serving(Settings(), data=tmp_path) as running:
        headers = {"authorization": f"Bearer {token(running, running.plane.service_client)}"}
        url = f"{running.base_url}/flyteidl2.project.ProjectService/CreateProject"

        def create(name: str) -> httpx.Response:
            body = {"project": {"id": name}}
            return httpx.post(url, json=body, headers=headers, trust_env=False)

        full = "database or disk is full"

        def no_room(self: Data, things: object) -> None:
            raise DataError(full)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Data, "keep", no_room)
            refused = create("one")
            assert (refused.status_code, refused.json()) == (
                503,
                {"code": "unavailable", "message": full},
            )
        assert create("two").status_code == 200
    with serving(Settings(), data=tmp_path) as running:
        names = running.plane.shelves.keys("project")
    assert {"one", "two"} <= set(names)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    data = Data(tmp_path)
    (pages,) = data._database.execute("PRAGMA page_count").fetchone()
    data._database.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(DataError, match=r"state.db cannot be written \(.*full\); make room"):
        data.keep([Thing("a", "x", b"x" * 100_000)])
    assert data.things() == []
    data.keep([Thing("a", "x", b"x")])
    data.close()


def token(running: Running, client: tuple[str, str]) -> str:
    form = {"grant_type": "client_credentials"}
    reply = httpx.post(f"{running.base_url}/oauth2/token", data=form, auth=client, trust_env=False)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["access_token"])


def test_a_restart_is_the_same_server_for_its_clients(tmp_path: Path) -> None:
    with serving(Settings(), tls=True, data=tmp_path) as first:
        assert first.ca_file is not None
        before = (first.endpoint, first.base_url, first.api_key, first.ca_file.read_bytes())
        first_token = token(first, first.plane.service_client)
        body = {
            "projectId": {"name": "churn", "domain": "staging"},
            "taskSpec": {"shortName": "run"},
        }
        headers = {"authorization": f"Bearer {first_token}"}
        created = httpx.post(
            f"{first.base_url}/flyteidl2.workflow.RunService/CreateRun",
            json=body,
            headers=headers,
            trust_env=False,
        )
        assert created.status_code == 200
    trust = ssl.create_default_context(cadata=before[3].decode())
    with serving(Settings(), tls=True, data=tmp_path) as second:
        assert second.ca_file is not None
        assert before == (
            second.endpoint,
            second.base_url,
            second.api_key,
            second.ca_file.read_bytes(),
        )
        again = token(second, first.plane.service_client)
        assert again != first_token
        listed = httpx.post(
            f"https://{second.endpoint.removeprefix('dns:///')}"
            "/flyteidl2.workflow.RunService/ListRuns",
            json={},
            headers={"authorization": f"Bearer {again}"},
            trust_env=False,
            verify=trust,
        )
        assert listed.json()["runs"][0]["action"] == created.json()["run"]["action"]


def test_a_port_that_somebody_else_has_meanwhile_is_given_up_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Settings(), data=tmp_path) as first:
        pass
    with (
        serving(Settings(), port=int(first.base_url.rpartition(":")[2])),
        serving(Settings(), data=tmp_path) as second,
    ):
        assert second.base_url != first.base_url
    assert "where this control plane was before, is taken" in caplog.text


def test_without_a_folder_nothing_is_left_behind() -> None:
    with serving(Settings(), tls=True) as running:
        assert running.ca_file is not None
        folder = running.ca_file.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        own = {path.name for path in folder.iterdir()} - {ALIVE}
        assert own == {"ca.pem"}  # no private key on disk
    assert not folder.exists()
