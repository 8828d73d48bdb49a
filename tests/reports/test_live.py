"""The page that is served while runs are in progress."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import records
from click.testing import CliRunner

from peftbench.cli.main import main
from peftbench.core.failures import Failure
from peftbench.reports.html import live
from peftbench.results import in_flight
from peftbench.results.store import ResultsFolder


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "runs")


@pytest.fixture
def server(results):
    with live.server(results, "127.0.0.1", 0, None, 0.01, "") as opened:
        threading.Thread(target=opened.serve_forever, daemon=True).start()
        yield opened
        opened.shutdown()


def ask(server, path="/", method="GET", **headers):
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    line.request(method, path, headers=headers)
    answer = line.getresponse()
    return answer.status, answer.read().decode()


def progress(server):
    return json.loads(ask(server, "/progress.json")[1])


def test_results_land_on_the_page(results, server):
    status, page = ask(server)
    assert (status, "Nothing to show yet" in page) == (200, True)
    assert f'data-state="{progress(server)["state"]}"' in page
    assert "connect-src &#39;self&#39;" in page
    first, second, third = records.runs("method=lora", "seed=0,1,2")
    for run in (first, second):
        results.save(records.record(run), records.predictions(40))
    server.page._due = 0.0  # a page is made at most in a sixth of the time
    assert f'data-state="{progress(server)["state"]}"' not in page
    page = ask(server)[1]
    assert second.key in page
    assert f'data-state="{progress(server)["state"]}"' in page
    server.page._due = float("inf")  # while it rests it stays, and the browser is not sent again
    results.save(records.record(third), records.predictions(40))
    assert third.key not in ask(server)[1]
    assert f'data-state="{progress(server)["state"]}"' in page


def test_a_search_of_learning_rates_is_told_too(results, server):
    in_flight.write(results.trials(), "peftbench tune method=lora", 2, 6, None, [])
    (told,) = progress(server)["commands"]
    assert (told["count"], told["command"]) == ("2 of 6 done", "peftbench tune method=lora")


def test_what_runs_is_told_with_loss_and_time_left(results, server):
    assert progress(server)["commands"] == []
    job = {"title": "lora · mrpc", "fraction": 0.25, "step": 7, "loss": 0.5}
    in_flight.write(results, "peftbench run sweep=mine", 1, 3, 120.0, [job])
    (failed,) = records.runs("method=full")
    results.fail(Failure(failed, "diverged", "the loss is nan"))
    told = progress(server)
    assert told["failed"] == "1 failed; `peftbench plan` tells why"
    assert told["commands"] == [
        {
            "count": "1 of 3 done, about 2.0 min left",
            "command": "peftbench run sweep=mine",
            "jobs": [{"title": "lora · mrpc", "fraction": 0.25, "step": ", step 7, loss 0.500"}],
        }
    ]


def test_the_server_reads_and_serves_this_machine_alone(results, server):
    results.save(records.record(records.runs("method=lora")[0]), records.predictions())
    before = sorted(results.folder.rglob("*"))
    assert server.server_address[0] == "127.0.0.1"
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/", method)[0] == 501
    for path in ("/records", "/../../etc/passwd", "/%2e%2e/runs", "//etc/passwd"):
        assert ask(server, path)[0] == 404
    assert ask(server, Host=f"localhost:{server.server_port}")[0] == 200
    for host in ("evil.example", f"evil.example:{server.server_port}", ""):
        assert ask(server, Host=host)[0] == 403
    assert sorted(results.folder.rglob("*")) == before


def test_a_baseline_that_is_not_there_yet_is_waited_for(results):
    results.save(records.record(records.runs("method=lora")[0]), records.predictions())
    page = live.LivePage(results, "full", 0.01, "")
    assert "Nothing to show yet: " in page.body().decode()
    page = live.LivePage(results, None, 0.01, "method=lora")
    assert records.runs("method=lora")[0].key in page.body().decode()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--live", "-o", "page.html"], "a page that is served is not written"),
        (["--port", "0"], "--port is of --live"),
        (["--live", "--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
    ],
)
def test_options_that_do_not_go_together(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["report", "html", *words])
    assert done.exit_code == 2, done.output
    assert said in done.output


def test_a_taken_port_is_told(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["report", "html", "--live", "--port", str(server.server_port)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "--port 0 takes a free port" in done.output


@pytest.mark.slow
@pytest.mark.browser
def test_a_sweep_is_watched_in_a_browser(chromium, results, tmp_path):
    """Two runs of some seconds beside the page: each in progress, then on the leaderboard."""

    def start(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "peftbench", *words, "--results", str(results.folder)],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    serving = start("report", "page", "--live", "--port", "0")
    assert "called report html now" in serving.stdout.readline()
    address = serving.stdout.readline().partition(": ")[0]
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    tab = context.new_page()
    complaints = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(address)
    tab.get_by_text("No command runs on this machine").wait_for()
    assert tab.locator("#answer").inner_text().startswith("Nothing to show yet")
    words = [word for word in records.TINY if not word.startswith("budget")]
    sweep = start(
        *("run", *words, "method=lora,bitfit", "budget=seconds", "budget.seconds=6"),
        *("task=synthetic_opinion", "--workers", "1", "--device", "cpu"),
    )
    try:
        running = tab.locator("#live li", has_text="loss")
        running.wait_for(timeout=120_000)
        assert tab.locator("#live code").inner_text().startswith("peftbench run model=tiny")
        assert "of 2 done" in tab.locator("#live strong").inner_text()
        assert 0 < running.locator("progress").evaluate("bar => bar.value") < 1
        rows = tab.get_by_role("table", name="Leaderboard").locator("tbody tr")
        rows.first.wait_for(timeout=60_000)
        assert rows.count() == 1
        tab.locator("#live li").wait_for()  # the second one, beside the first's result
        rows.nth(1).wait_for(timeout=60_000)
        assert sweep.wait(60) == 0, sweep.stdout.read()
        tab.get_by_text("No command runs on this machine").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        serving.send_signal(signal.SIGINT)
        assert serving.wait(30) == 0
        tab.get_by_text("The server of this page has stopped").wait_for()
        assert rows.count() == 2
    finally:
        for process in (sweep, serving):
            process.kill()
            process.wait()
    assert [line for line in complaints if "ERR_CONNECTION_REFUSED" not in line] == []
    context.close()
    assert not (tmp_path / "report.html").exists()
