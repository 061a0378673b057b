"""The `score` stage: reward components for prompts and completions that lie in a file."""

import json
from pathlib import Path

from rlhf.config import ScoreConfig
from rlhf.data.examples import load_examples
from rlhf.errors import UserError
from rlhf.report.tables import print_table
from rlhf.rewards import RewardSum, reward_inputs
from rlhf.runs.files import require_file, write_atomically


def run_score(config: ScoreConfig) -> dict[str, float]:
    """Write the input's rows back with `reward`, `rewards` (by component) and `extra` (what they log) added.

    Prints and returns the means, also of the metrics that rewards log, as `reward_metric/NAME`.

    A completion is compared with the row's `reference` where there is one, else with itself.
    Raises UserError for a row without a completion.
    """
    rewards = RewardSum.from_specs(config.rewards)
    require_file(Path(config.output))
    examples = load_examples(config.input, "train", may_be_empty=True)
    completions = []
    for example in examples:
        if example.completion is None:
            raise UserError(f"{example.origin}: completion is missing; there is nothing to score")
        completions.append(example.completion)
    scores = rewards(*reward_inputs(examples, completions))
    totals = [total + spans for total, spans in zip(scores.total, scores.span_total, strict=True)]
    rows = [
        {
            "prompt": list(examples[row].turns) or examples[row].prompt,
            "completion": completions[row],
            **examples[row].columns,
            "reward": totals[row],
            "rewards": {name: component[row] for name, component in scores.components.items()},
            **({"extra": scores.extra(row)} if scores.logged.extra else {}),
        }
        for row in range(len(examples))
    ]
    write_atomically(Path(config.output), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    named = {"reward": "reward/reward"}  # a component of that name beside the sum
    components = {named.get(name, name): mean for name, mean in scores.component_means().items()}
    means = {"reward": sum(totals) / len(totals), **components, **scores.logged.metric_means()}
    print_table(["component", "mean"], [[name, f"{mean:.3f}"] for name, mean in means.items()])
    print(f"{len(rows)} rows written to {config.output}")
    return means
