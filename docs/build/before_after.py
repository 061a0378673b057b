"""The README's picture: one held-out prompt, the response before PPO and the one after it, both rendered.

    python docs/build/before_after.py RUN "part of the prompt" docs/figures/before-after.png [--height 560]

RUN is the folder of a pipeline. Needs Chromium and what `rlhf setup-render` installs.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from rlhf.report.document import document
from rlhf.report.load import read_run
from rlhf.report.previews import render_previews
from rlhf.report.samples import Pair, sample_card

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--height", type=int, default=560)
    options = parser.parse_args()
    (_, before), (_, after) = read_run(options.run).evaluations.items()
    pairs = zip(before.rows, after.rows, strict=True)
    old, new = next(pair for pair in pairs if options.prompt in str(pair[0]["prompt"]))
    previews = render_previews([str(old["response"]), str(new["response"])])
    card = sample_card(Pair(str(old["prompt"]), old, new, "a held-out prompt"), ("before PPO", "after PPO"), previews)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(document("before and after PPO", card), encoding="utf-8")
        size = f"--window-size=1000,{options.height}"
        command = ["chromium", *FLAGS, size, f"--screenshot={options.picture.resolve()}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    print(options.picture)


if __name__ == "__main__":
    main()
