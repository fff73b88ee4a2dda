"""The page is served to who has its address, and to nobody else."""

import asyncio
import re
import time

import pytest
from aiohttp import ClientSession, web

from fff.base.errors import PortError
from fff.data.run_directory import RunDirectory
from fff.report.web import HOST, WatchPage, _serve
from tests.support.watched_campaigns import WatchedCampaign

TOKEN = "the-token"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    campaign = WatchedCampaign(tmp_path_factory.mktemp("web") / "run", began=time.time() - 60.0)
    campaign.play().write_status("finished", "20 labels were made")
    return campaign.run


def ask(run, *paths, headers=None, method="GET"):
    """Return status, headers and text of each path of a page that is served meanwhile."""

    async def ask_all():
        runner = web.AppRunner(WatchPage(run, TOKEN).application(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            port = runner.addresses[0][1]
            answers = []
            async with ClientSession() as session:
                for path in paths:
                    url = f"http://{HOST}:{port}{path}"
                    async with session.request(method, url, headers=headers) as answer:
                        text = await answer.text()
                        answers.append((answer.status, answer.headers, text))
            return answers
        finally:
            await runner.cleanup()

    return asyncio.run(ask_all())


def test_the_page_and_the_view_are_given_to_who_has_the_token(run):
    (page, headers, html), (view, _, text) = ask(run, f"/{TOKEN}/", f"/{TOKEN}/view.json")
    assert (page, view) == (200, 200)
    assert headers["Content-Type"].startswith("text/html")
    assert "<title>fff</title>" in html
    assert '"state":"finished"' in text


@pytest.mark.parametrize(
    "path",
    ["/", "/view.json", "/wrong/", "/wrong/view.json", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/view.json", "/ü/"],
)
def test_nobody_else_learns_anything(run, path):
    ((status, headers, text),) = ask(run, path)
    assert status == 403
    assert text == "This address is not valid. Use the one that `fff watch` printed.\n"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9", 200),
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("10.0.0.1:80", 403),
    ],
)
def test_a_name_that_was_led_here_is_refused(run, host, status):
    assert ask(run, f"/{TOKEN}/view.json", headers={"Host": host})[0][0] == status


def test_a_question_about_the_server_as_a_whole_is_refused(run):
    async def ask_it():
        runner = web.AppRunner(WatchPage(run, TOKEN).application(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            reader, writer = await asyncio.open_connection(HOST, runner.addresses[0][1])
            writer.write(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
            line = await reader.readline()
            writer.close()
            return line
        finally:
            await runner.cleanup()

    assert b" 403 " in asyncio.run(ask_it())


def test_what_is_not_there_and_what_may_not_be_done_is_refused(run):
    assert [answer[0] for answer in ask(run, f"/{TOKEN}/other", f"/{TOKEN}/../etc/passwd")] == [404, 403]
    assert ask(run, f"/{TOKEN}/view.json", method="POST")[0][0] == 405


def test_only_the_scripts_and_styles_of_the_page_itself_may_run(run):
    (_, headers, html), (_, again, _) = ask(run, f"/{TOKEN}/", f"/{TOKEN}/")
    policy = headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy).group(1)
    assert html.count(f'nonce="{nonce}"') == 2
    assert "{{nonce}}" not in html
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert again["Content-Security-Policy"] != policy
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_the_page_asks_nobody_but_its_own_server_and_sets_no_markup_from_data(run):
    html = ask(run, f"/{TOKEN}/")[0][2]
    addresses = set(re.findall(r"https?://[^\"' )]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a format, which nobody fetches
    for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in html


def test_tokens_are_long_and_drawn_anew(run):
    tokens = {WatchPage(run).token for _ in range(5)}
    assert len(tokens) == 5
    assert min(map(len, tokens)) >= 32


def test_many_questions_at_once_cost_one_look(run, monkeypatch):
    looks = []
    page = WatchPage(run, TOKEN)
    look = page._view.look
    monkeypatch.setattr(page._view, "look", lambda: looks.append(1) or look())

    async def ask_often():
        return await asyncio.gather(*(page._data(None) for _ in range(20)))

    assert {answer.status for answer in asyncio.run(ask_often())} == {200}
    assert len(looks) == 1


def test_a_port_that_is_taken_is_an_error_with_a_hint(tmp_path):
    async def serve_twice():
        runner = web.AppRunner(web.Application())
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            await _serve(RunDirectory(tmp_path), runner.addresses[0][1], print)
        finally:
            await runner.cleanup()

    with pytest.raises(PortError, match=r"cannot be served on port \d+ of 127.0.0.1: .*in use") as caught:
        asyncio.run(serve_twice())
    assert "--port" in caught.value.hint
