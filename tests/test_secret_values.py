"""Values that look like secrets are hidden whatever their key, everywhere; the rest of a config stays as it is."""

import json

import pytest
import yaml
from tiny_data import write_jsonl

from rlhf.cli import main
from rlhf.config import DataConfig, EvaluateConfig, ModelConfig
from rlhf.config.command_line import parse
from rlhf.config.secrets import mask_secrets, mask_settings, mask_text
from rlhf.errors import UserError
from rlhf.rewards import RewardSpec
from rlhf.runs.folder import open_run

# Made up here, in the form that the services give them; put together so that no scanner takes this file for a leak.
SECRETS = {
    "OpenAI": "sk-" + "proj-" + "Ab1" * 12,
    "any sk- key": "sk-" + "abcdefghij" * 3,
    "Anthropic": "sk-" + "ant-api03-" + "aB3-" * 8,
    "Hugging Face": "hf_" + "AbCdEfGh" * 4,
    "AWS id": "AKIA" + "ABCDEFGH23456789",
    "GitHub": "ghp_" + "a1B2c3D4e5F6" * 3,
    "GitHub, fine-grained": "github_pat_" + "11AAAAAAA0" * 3,
    "GitLab": "glpat-" + "abcde12345" * 2,
    "Slack": "xoxb-" + "123456789012-abcdefABCDEF",
    "Google": "AIza" + "SyD9tSrke72PouQMnMXa7eZSW0jkFMBWY",
    "JWT": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5NXgL0n3I9PlFUP0THsR8U",
    "npm": "npm_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "PyPI": "pypi-AgEIcHlwaS5vcmc" + "a1B2" * 20,
    "SendGrid": "SG." + "a" * 22 + "." + "b" * 43,
    "Stripe": "sk_live_" + "a1b2c3d4" * 3,
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_hidden_within_a_text(secret):
    assert mask_text(secret) == "***"
    assert mask_text(f"before {secret}, after") == "before ***, after"
    assert mask_secrets({"note": [{"x": f"use {secret}"}]}) == {"note": [{"x": "use ***"}]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.DEF-123456", "Authorization: Bearer ***"),
        ("https://user:pass@host:8000/v1?x=1", "https://***@host:8000/v1?x=1"),
        ("postgres://me:p%40ss@db/x", "postgres://***@db/x"),
        ("https://host/v1?api_key=abc&x=1", "https://host/v1?api_key=***&x=1"),
        (
            "aws_secret_access_key = '" + "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY'",
            "aws_secret_access_key = '***'",
        ),
    ],
)
def test_only_the_secret_part_is_hidden(text, shown):
    assert mask_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "meta-llama/Llama-3.2-1B", "runs/ppo/model", "sk-learn-classification", "risk_assessment_long_word_here",
        "hf_model", "http://localhost:8000/v1", "https://react.dev:443/x @you", "a bearer of news",
        "basic understanding", "react_heuristic", "2026-11-28T03:59:34", "4bit", "task sk-1",
        "192.168.0.1 or 8.8.8.8", "APPROVED",
        "0123456789abcdef0123456789abcdef01234567", "Name a token: what is it?",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert mask_text(text) == text


def config(address: str, word: str = "a") -> EvaluateConfig:
    rewards = [RewardSpec(path="keywords", args={"words": [word], "note": address})]
    return EvaluateConfig(model=ModelConfig(name_or_path="gpt2"), data=DataConfig(train="x"), rewards=rewards)


def test_a_run_with_a_masked_value_is_opened_again(tmp_path):
    folder = open_run(str(tmp_path / "run"), config("https://user:one@host/v1"))
    (folder / "evaluation.json").write_text("{}")
    assert "note: https://***@host/v1" in (folder / "config.yaml").read_text()
    open_run(str(folder), config("https://user:two@host/v1"))  # another secret is no other run
    with pytest.raises(UserError, match=r"was 'https://\*\*\*@host/v1' and is 'https://\*\*\*@host/v2'"):
        open_run(str(folder), config("https://user:one@host/v2"))


def test_a_run_of_an_earlier_release_whose_config_holds_the_value_is_opened_again(tmp_path):
    folder = open_run(str(tmp_path / "run"), config("https://user:one@host/v1"))
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("***", "user:one"))
    (folder / "evaluation.json").write_text("{}")
    assert open_run(str(folder), config("https://user:one@host/v1")) == folder
    with pytest.raises(UserError, match="other/v1"):  # it is the masked value that counts as equal, nothing else
        open_run(str(folder), config("https://user:one@other/v1"))


def test_errors_hide_secrets(tmp_path, capsys):
    secret = SECRETS["Hugging Face"]
    for argv in (
        ["ppo", "--model", "x", "--data", "x", "--rewards", secret],
        ["ppo", "--batch_size", secret, "--model", "x", "--data", "x", "--rewards", "length"],
        ["generate", "--model", f"/nowhere/{secret}", "--prompt", "a"],
        [secret],
    ):
        with pytest.raises(SystemExit):
            main(argv)
        error = capsys.readouterr().err
        assert secret not in error
        assert "***" in error
    file = tmp_path / "a.yaml"
    file.write_text(f"a: [{SECRETS['GitHub']}")
    with pytest.raises(UserError) as caught:
        parse(EvaluateConfig, [str(file)])
    assert SECRETS["GitHub"] not in str(caught.value)
    assert mask_settings("api_key: abc") == "api_key: ***"


def paid(prompts, completions, header, **columns):
    assert header.startswith("Bearer sk-")
    return [float(len(text)) for text in completions]


def test_nothing_that_a_run_writes_holds_a_value_that_looks_like_a_secret(tiny_models, tmp_path, capsys):
    secret = SECRETS["any sk- key"]
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"p{n}"} for n in range(4)])
    settings = {
        "output_dir": str(tmp_path / "run"),
        "model": str(tiny_models["gpt2"]),
        "data": {"train": prompts, "system_prompt": f"Say visible words to https://me:{secret}@host."},
        "rewards": [{"path": "test_secret_values.paid", "args": {"header": f"Bearer {secret}"}}],
        "sampling": {"max_new_tokens": 4},
        "num_updates": 1, "batch_size": 4,
        "tracking": {"wandb": False},
    }  # fmt: skip
    (tmp_path / "ppo.yaml").write_text(yaml.safe_dump(settings))
    main(["ppo", str(tmp_path / "ppo.yaml")])
    main(["report", str(tmp_path / "run")])
    files = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert [file for file, content in files.items() if secret.encode() in content] == []
    visible = [file.name for file, content in files.items() if b"visible words" in content]
    assert {"config.yaml", "README.md"} <= set(visible)  # else the search would prove nothing
    assert any(name.startswith("events.out") for name in visible)
    assert secret not in "".join(capsys.readouterr())
    assert json.loads((tmp_path / "run" / "done.json").read_text())["seconds"] >= 0
