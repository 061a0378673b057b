"""The IFEval command: every prompt is answered greedily and each response is judged by its own row's instructions."""

import json
import re

import ifeval
from tiny_data import write_jsonl

NO_COMMA, LONG = "punctuation:no_comma", "length_constraints:number_words"
ROWS = [
    {"key": 1, "prompt": "Say hi.", "instruction_id_list": [NO_COMMA], "kwargs": [{"num_words": None}]},
    {
        "key": 2,
        "prompt": "Say a lot.",
        "instruction_id_list": [NO_COMMA, LONG],
        "kwargs": [{}, {"relation": "at least", "num_words": 500}],
    },
]


def test_accuracies_of_a_model(tiny_models, tmp_path, monkeypatch, capsys):
    data = write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    model, output = str(tiny_models["llama"]), tmp_path / "ifeval"
    arguments = [model, "--data", data, "--dtype", "float32", "--max_new_tokens", "8", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["ifeval.py", *arguments])
    ifeval.main()
    [file] = output.glob("*/responses.jsonl")
    responses = [json.loads(line)["response"] for line in file.read_text().splitlines()]
    no_comma = [float("," not in response) for response in responses]  # eight tokens are never 500 words
    shown = dict(re.findall(r"^│ ([a-z ]+?)(?: \(\d\))? +│ +(\d+\.\d) │", capsys.readouterr().out, re.MULTILINE))
    assert shown["prompts"] == f"{100 * no_comma[0] / 2:.1f}"
    assert shown["instructions"] == f"{100 * sum(no_comma) / 3:.1f}"
