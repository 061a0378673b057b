"""Our rewards in TRL's GRPOTrainer: the built-ins as names of rlhf.rewards, given text or turns."""

import pickle
import warnings

import pytest

import rlhf.rewards
from rlhf.rewards import BUILTINS, RewardError

WITHOUT_OPTIONS = [name for name in BUILTINS if name not in (
    "classifier", "judge", "keywords", "regex", "reward_model", "server"
)]  # fmt: skip
NEED_SETUP = ("react_full", "react_match", "react_render")
COLUMNS = {"instruction_id_list": [["punctuation:no_comma"]], "kwargs": [[{}]]}
CODE = "export default function A() { return <br/>; }"


def turns(role, text):
    return [{"role": role, "content": text}]


@pytest.fixture
def render_ready(request):
    from rewards.render_available import missing

    if request.getfixturevalue("name") in NEED_SETUP and missing():
        pytest.skip(missing())


@pytest.mark.parametrize("name", BUILTINS)
def test_every_built_in_is_a_callable_with_its_name(name):
    reward = getattr(rlhf.rewards, name)
    assert callable(reward)
    assert reward.__name__ == name
    assert pickle.loads(pickle.dumps(reward)).__name__ == name
    kind = getattr(rlhf.rewards, BUILTINS[name].rpartition(".")[2])
    assert kind.__new__(kind).__name__ == name  # as an instance has it
    assert {name, kind.__name__} <= set(dir(rlhf.rewards))


@pytest.mark.usefixtures("render_ready")
@pytest.mark.parametrize("name", WITHOUT_OPTIONS)
def test_text_and_turns_earn_the_same(name):
    reward = getattr(rlhf.rewards, name)
    more = {"reference": [CODE], "trainer_state": None, "log_extra": print, "completion_ids": [[1]], **COLUMNS}
    text = reward(prompts=["p"], completions=[CODE], **more)
    assert reward(prompts=[turns("user", "p")], completions=[turns("assistant", CODE)], **more) == text
    more["reference"] = [turns("assistant", CODE)]
    assert reward(completions=[turns("assistant", CODE)], **more) == text
    assert text != [None]


@pytest.mark.parametrize(("name", "option"), [("regex", "pattern"), ("server", "url"), ("classifier", "path, label")])
def test_a_built_in_that_needs_options_says_so(name, option):
    with pytest.raises(RewardError, match=f"args must give {option}"):
        getattr(rlhf.rewards, name)(completions=["a"])


def test_options_belong_to_the_class():
    with pytest.raises(
        RewardError, match=r"length is called with maximum: options go to the class, rlhf.rewards.Length"
    ):
        rlhf.rewards.length(completions=["a"], maximum=3)
    assert rlhf.rewards.Length(maximum=3, margin=4)(["p"], ["abcdef"]) == [0.25]


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="react_ful"):
        _ = rlhf.rewards.react_ful


def test_names_stay_callable_once_every_module_is_imported():
    import importlib

    for path in BUILTINS.values():
        importlib.import_module(path.rpartition(".")[0])
    assert [name for name in BUILTINS if not callable(getattr(rlhf.rewards, name))] == []


@pytest.mark.usefixtures("render_ready")
@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize("name", ["react_full", "react_static"])
def test_grpo_trainer_takes_them(tiny_models, tmp_path, name, conversational):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from rlhf.rewards import Length, react_heuristic

    prompts = ["Show a button.", "Show a list."]
    rows = {"prompt": [turns("user", p) for p in prompts] if conversational else prompts, "reference": [CODE, CODE]}
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama"])
    settings = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
        max_steps=1, use_cpu=True, bf16=False, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(tiny_models["llama"]),
            reward_funcs=[getattr(rlhf.rewards, name), react_heuristic, Length(maximum=1, margin=1)],
            args=settings,
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    logged = trainer.state.log_history[0]
    assert 0.0 <= logged[f"rewards/{name}/mean"] <= 1.0
    assert logged["rewards/react_heuristic/mean"] < 1.0
    assert 0.0 <= logged["rewards/length/mean"] <= 1.0
