"""Rewards behind a URL: the protocol, and a service that fails in every way it can."""

import json
import logging
import subprocess
import sys

import pytest
from documents import blocks
from reward_server import HANG, Answer, chat, closed_port, serving

from rlhf.rewards import Judge, RewardError, RewardSpec, RewardSum, Server, WeightedReward
from rlhf.rewards.remote import client

KEY = "not-a-real-key-1234"
PROMPTS = ["p0", "p1", "p2"]
TEXTS = ["a", "bb", "ccc"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)


def lengths(body, number=0):
    return Answer({"scores": [len(text) for text in body["completions"]]})


def total(reward, prompts=PROMPTS, texts=TEXTS, columns=None):
    return RewardSum([WeightedReward("remote", reward)])(prompts, texts, columns or {})


# --- a server of scores ---


def test_batches_go_out_with_their_columns_and_come_back_in_order():
    with serving(lengths) as service:
        scores = total(Server(service.url, batch_size=2), columns={"reference": ["x", None, "z"]})
    assert scores.components["remote"] == [1.0, 2.0, 3.0]
    assert sorted((body for _, _, body in service.asked), key=lambda body: body["prompts"]) == [
        {"prompts": ["p0", "p1"], "completions": ["a", "bb"], "columns": {"reference": ["x", None]}},
        {"prompts": ["p2"], "completions": ["ccc"], "columns": {"reference": ["z"]}},
    ]
    assert scores.logged.metric_means() == {}


def test_conversations_go_out_as_they_are_and_null_does_not_apply():
    turns = [{"role": "user", "content": "Hi"}]
    said = [{"role": "assistant", "content": "Ho"}]
    with serving(lambda body, n: Answer({"scores": [None]})) as service:
        assert total(Server(service.url), [turns], [said]).components["remote"] == [None]
    assert service.asked[0][2] == {"prompts": [turns], "completions": [said], "columns": {}}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Answer(b"overloaded", status=500), "http_500"),
        (Answer(b"slow down", status=429, headers={"Retry-After": "0"}), "http_429"),
        (Answer(b"<html>not JSON</html>"), "bad_answer"),
        (Answer({"scores": [1.0]}), "bad_answer"),
        (Answer({"scores": ["1", "2", "3"]}), "bad_answer"),
        (Answer(b'{"scores": [NaN, 1, 2]}'), "bad_answer"),
        (Answer({"scores": [True, 1, 2]}), "bad_answer"),
        (Answer([1, 2, 3]), "bad_answer"),
        (Answer(b"[" * 100_000), "bad_answer"),
        (Answer(b"{", headers={"Content-Length": "100"}), "connection"),
        (Answer(wait=HANG), "timeout"),
        (Answer({"scores": [1, 2, 3]}, drip=1.0), "timeout"),
    ],
)
def test_a_fault_that_passes_is_tried_again_and_counted(fault, kind):
    with serving(lambda body, number: fault if number < 2 else lengths(body)) as service:
        scores = total(Server(service.url, timeout=2.0 if kind == "timeout" else 60.0, retries=2))
    assert scores.components["remote"] == [1.0, 2.0, 3.0]
    assert scores.logged.metric_means() == {f"reward_metric/server_errors/{kind}": 2.0}


def test_a_server_that_keeps_failing_is_named_with_the_counts():
    faults = [Answer(b"down", status=503), Answer(b"what?"), Answer(b"down", status=503)]
    with serving(lambda body, number: faults[number]) as service, pytest.raises(RewardError) as caught:
        total(Server(f"{service.url}/score?secret=1", retries=2))
    assert str(caught.value) == (
        f"reward 'remote': {service.url}/score failed (2 x http_503, 1 x bad_answer); the last time: HTTP 503 'down'"
    )
    assert len(service.asked) == 3  # and no search for a sample at fault


def test_a_request_that_is_wrong_is_not_tried_again():
    with serving(lambda body, n: Answer(b"no such path", status=404)) as service, pytest.raises(RewardError) as caught:
        total(Server(service.url))
    assert "1 x http_404); the last time: HTTP 404 'no such path'" in str(caught.value)
    assert len(service.asked) == 1


def test_nobody_there():
    with pytest.raises(RewardError, match=r"failed \(3 x connection\); the last time: 'ConnectError"):
        total(Server(f"http://127.0.0.1:{closed_port()}", retries=2))


def test_no_more_requests_at_once_than_allowed():
    def answer(body, number):
        return Answer({"scores": [0.0]}, wait=0.05)

    with serving(answer) as service:
        total(Server(service.url, batch_size=1, concurrency=2), ["p"] * 8, ["c"] * 8)
    assert (len(service.asked), service.most_at_once) == (8, 2)


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serving(lambda body, n: Answer(f"wrong key {KEY}".encode(), status=401)) as service:
        reward = Server(service.url, key_env="MY_KEY")
        with pytest.raises(RewardError) as caught:
            total(reward)
    assert service.asked[0][1]["Authorization"] == f"Bearer {KEY}"
    assert "HTTP 401 'wrong key ***'" in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(vars(reward)) + repr(vars(reward.client))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"url": "ftp://here"}, "must begin with http:// or https://"),
        ({"url": "localhost:8000"}, "must begin with http:// or https://"),
        ({"url": "http://me:word@here/"}, "the url of here holds a password"),
        ({"url": "http://here", "timeout": 0}, "need timeout > 0"),
        ({"url": "http://here", "retries": -1}, "retries >= 0"),
        ({"url": "http://here", "batch_size": 0}, "batch_size 0 must be at least 1"),
        ({"url": "http://here", "key_env": "NO_SUCH_VARIABLE"}, "the environment variable NO_SUCH_VARIABLE is not set"),
        ({}, "args must give url"),
    ],
)
def test_wrong_options_of_a_server_are_refused(args, message):
    with pytest.raises(RewardError, match=message) as caught:
        RewardSum.from_specs([RewardSpec(path="server", args=args)])
    assert "word" not in str(caught.value).replace("password", "")


def test_the_server_in_the_docs_runs():
    [(_, _, code)] = blocks("python", page="docs/how-to/reward-server.md")
    port = closed_port()
    command = [sys.executable, "-c", code.replace("8000", str(port))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            scores = total(Server(f"http://localhost:{port}/", retries=12))
        finally:
            process.kill()
    assert scores.components["remote"] == [0.01, 0.02, 0.03]


# --- a judge ---

RUBRIC = "Is the answer {reference} given?"


@pytest.fixture
def judge(tmp_path):
    def make(url, rubric="Is it polite?", **options):
        return Judge(f"{url}/v1", "small", rubric, cache=str(tmp_path / "deep" / "cache.sqlite"), **options)

    return make


def rating(body, number=0):
    """The judge's number is the length of the response, which stands in the second of the marked parts."""
    said = body["messages"][0]["content"].split("===== response =====\n")[1].split("\n=====")[0]
    return chat(f"It has {len(said)} letters.\nScore: {len(said)}")


def test_a_judge_sees_rubric_prompt_and_response_and_its_number_becomes_a_score(judge):
    with serving(rating) as service:
        scores = total(judge(service.url, RUBRIC, options={"max_tokens": 9}), columns={"reference": ["x", "y", "z"]})
    assert scores.components["remote"] == pytest.approx([0.0, 1 / 9, 2 / 9])  # (N - 1) / (10 - 1)
    path, headers, body = next(asked for asked in service.asked if "y given" in json.dumps(asked[2]))
    assert (path, body["model"], body["temperature"], body["max_tokens"]) == ("/v1/chat/completions", "small", 0, 9)
    assert "Authorization" not in headers
    [message] = body["messages"]
    assert message["content"].startswith("Is the answer y given?\n")
    assert "===== prompt =====\np1\n===== response =====\nbb\n=====" in message["content"]
    assert scores.extra(2) == {"judge": "It has 3 letters.\nScore: 3"}
    assert scores.logged.metric_means() == {"reward_metric/judge_no_score": 0.0}


def test_a_judge_reads_conversations(judge):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with serving(rating) as service:
        total(judge(service.url), [turns], [[{"role": "assistant", "content": "Ho"}]])
    content = service.asked[0][2]["messages"][0]["content"]
    assert "system: Be brief.\n\nuser: Hi\n===== response =====\nHo\n" in content


def test_the_same_question_is_asked_once_and_never_again(judge):
    with serving(rating) as service:
        first = total(judge(service.url), ["p"] * 3, ["aa", "aa", "b"])
        again = total(judge(service.url), ["p"] * 3, ["b", "aa", "b"])
        assert len(service.asked) == 2
        total(judge(service.url, "Another rubric"), ["p"], ["aa"])
        total(judge(service.url, options={"temperature": 1}), ["p"], ["aa"])
        total(Judge(f"{service.url}/v1", "large", "Is it polite?", cache=None), ["p"], ["aa"])
    assert len(service.asked) == 5
    assert first.components["remote"] == pytest.approx([1 / 9, 1 / 9, 0.0])
    assert again.components["remote"] == pytest.approx([0.0, 1 / 9, 0.0])


def test_an_answer_without_a_number_does_not_apply_is_counted_and_not_kept(judge):
    def answer(body, number):
        return rating(body) if "response =====\nbad" not in body["messages"][0]["content"] else chat("I cannot.")

    texts = ["a", "bad", "ccc", "a"]
    with serving(answer) as service:
        reward = judge(service.url)
        scores = total(reward, ["p"] * 4, texts)
        assert scores.components["remote"] == [0.0, None, pytest.approx(2 / 9), 0.0]
        assert scores.logged.metric_means() == {"reward_metric/judge_no_score": 0.25}
        assert len(service.asked) == 3
        total(reward, ["p"] * 4, texts)
        assert len(service.asked) == 4
        with pytest.raises(RewardError, match=r"3 of 4 answers hold no score from 1 to 10, for example 'I cannot.'"):
            total(reward, ["p"] * 4, ["bad", "bad1", "bad2", "a"])


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("Score: 10", 1.0),
        ("**Score:** 5.5", 0.5),
        ("score = 1/10", 0.0),
        ("First I thought Score: 2, but no.\nScore: 10.", 1.0),
        ("10", 1.0),
        ("I give it 5.5 of them", 0.5),
        ("Between 3 and 7", None),
        ("Score: 11", None),
        ("Score: -1", None),
        ("Score: N", None),
        ("", None),
    ],
)
def test_the_number_in_an_answer(judge, said, score):
    assert judge("http://here").score(said) == score


def test_a_negative_number_is_negative(judge):
    assert judge("http://here", minimum=-1.0, maximum=1.0).score("Score: -0.5") == 0.25


@pytest.mark.parametrize(
    "fault",
    [
        Answer(b"", status=502),
        Answer({"error": "model is loading"}),
        Answer({"choices": []}),
        chat(None),
        chat([{"type": "text"}]),
        Answer(b"data: garbage"),
        Answer(wait=HANG),
    ],
)
def test_a_judge_is_asked_again_after_a_fault(judge, fault):
    with serving(lambda body, number: fault if number < 2 else rating(body)) as service:
        scores = total(judge(service.url, timeout=2.0 if fault.wait else 60.0, retries=2), ["p"], ["bb"])
    assert scores.components["remote"] == pytest.approx([1 / 9])
    [(kind, count)] = [x for x in scores.logged.metric_means().items() if x[0] != "reward_metric/judge_no_score"]
    assert kind.startswith("reward_metric/judge_errors/")
    assert count == 2.0


def test_what_was_answered_before_a_failure_is_kept(judge):
    with serving(lambda body, number: rating(body) if number < 2 else Answer(b"", status=400)) as service:
        reward = judge(service.url, concurrency=1)
        with pytest.raises(RewardError, match="http_400"):
            total(reward)
        with pytest.raises(RewardError, match="http_400"):
            total(reward)
    assert len(service.asked) == 4  # two good ones, and the third twice


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum": 3.0, "maximum": 3.0}, r"minimum 3\.0 must be less than maximum 3\.0"),
        ({"rubric": "Is it {a.__class__}?"}, r"rubric names \{a\.__class__\}"),
        ({"rubric": "JSON like {}"}, r"rubric names \{\}"),
        ({"rubric": "An open {"}, "write {{ and }} for braces"),
        ({"rubric": "{a:{b}}"}, r"rubric names \{a\}"),
        ({"key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_wrong_options_of_a_judge_are_refused(judge, options, message):
    with pytest.raises(ValueError, match=message):
        judge("http://here", **options)


def test_a_rubric_that_names_a_missing_column_says_which_there_are(judge):
    with pytest.raises(RewardError, match=r"the rubric names \{reference\}; the data has the columns: answer"):
        total(judge("http://here", RUBRIC), columns={"answer": TEXTS})


def test_a_cache_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "file").write_text("This is no database, and long enough to be seen as none." * 100)
    with pytest.raises(ValueError, match=r"file is not a database.*name another file"):
        Judge("http://here", "small", "Rate it", cache=str(tmp_path / "file"))
