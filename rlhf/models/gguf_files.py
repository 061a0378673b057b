"""A GGUF, the file of weights, settings and tokenizer that llama.cpp runs, as a model to train.

transformers reads it. Its quantized weights are multiplied out, since adapters want plain tensors below them: they keep
the values they were rounded to. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import contextlib
import importlib.util
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config.gguf import ENDING
from rlhf.errors import UserError, first_line
from rlhf.extras import installs
from rlhf.runs.hub import look_for_hub

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Values of `tokenizer.ggml.pre` for vocabularies that split like GPT-2's, but take every digit by itself."""
LIKE_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion")


def find_gguf(where: str, gguf_file: str) -> Path:
    """The file, absolute, in a folder or downloaded from the hub; transformers would look in the working folder first.

    Raises UserError when it is not there, with the names of those that are, or when the package gguf is not installed.
    """
    require_package(f"{gguf_file} is a GGUF")
    folder = Path(where)
    if folder.is_dir():
        if not (folder / gguf_file).is_file():
            raise UserError(f"{gguf_file!r} is not in {where}; GGUF files there: {listed(folder) or 'none'}")
        return (folder / gguf_file).resolve()
    from rlhf.models.private_names import cached_file

    look_for_hub()

    try:
        return Path(cached_file(where, gguf_file))
    except OSError as error:
        reason = first_line(error)
        raise UserError(f"no GGUF {gguf_file!r} in a folder or a reachable hub model {where!r} ({reason})") from error


def require_package(why: str) -> None:
    """Raise UserError, which begins with the reason, unless the package gguf is installed."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{why}, which needs the package gguf; {installs('gguf')}")


def listed(folder: Path) -> str:
    """The GGUF files of a folder, in words."""
    return ", ".join(sorted(file.name for file in folder.glob(f"*{ENDING}")))


@contextlib.contextmanager
def alone(file: Path) -> Iterator[Path]:
    """A folder with nothing but a link to the file: transformers would take settings from what else lies beside it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file)
        yield Path(folder)


def loading_options(auto_class: Any, file: Path) -> dict[str, Any]:
    """What `from_pretrained` takes to read the file as a tokenizer, a config, or a model (and to say what it lacks)."""
    from transformers import GgufConfig

    options: dict[str, Any] = {"gguf_file": str(file)}
    if is_model(auto_class):
        options |= {"quantization_config": GgufConfig(dequantize=True), "output_loading_info": True}
    return options


def is_model(auto_class: Any) -> bool:
    """Whether the class loads models, not tokenizers or configs."""
    return hasattr(auto_class, "from_config")


def check_complete(model: "PreTrainedModel", file: Path, missing: set[str]) -> None:
    """Raise UserError unless model and file hold the same numbers, but for the new head of a reward model.

    transformers leaves tensors out that it has no place for (Llama 3's rotary frequencies, biases), and weights at
    random that it does not find.

    Args:
        model: What was read.
        file: From where.
        missing: Parameters that transformers did not find.
    """
    from rlhf.models.private_names import GgufHeader, read_gguf_metadata

    lost = sorted(missing - {"score.weight"})
    if lost:
        raise UserError(f"{file.name} has no tensor for {len(lost)} weights of the model, the first is {lost[0]}")
    head = model.get_output_embeddings()
    has_head = head is not None and head.weight is not model.get_input_embeddings().weight
    tensors = [each for each in GgufHeader.from_file(str(file)).tensors if has_head or each.name != "output.weight"]
    stored = sum(math.prod(each.shape) for each in tensors)
    read = sum(p.numel() for name, p in model.named_parameters() if name not in missing)
    metadata, _ = read_gguf_metadata(str(file))
    architecture = metadata["general.architecture"]
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if stored != read or (scaling != "none" and architecture != "gpt-oss"):
        what = (
            f"{stored} numbers, of which {read} are" if stored != read else f"rotary scaling ({scaling}), which is not"
        )
        raise UserError(
            f"{file.name} holds {what} read by transformers, so that another model would come of it; "
            "take the original, in safetensors"
        )


def split_text(tokenizer: "PreTrainedTokenizerFast", file: Path) -> None:
    """Split text as the vocabulary in the file was learned, where transformers does not.

    Otherwise the same text would become other tokens than in pretraining: `  1` as two spaces and a digit, say, where
    the model knows a double space. Raises UserError for a way to split that is known neither here nor there.
    """
    from tokenizers import pre_tokenizers

    from rlhf.models.private_names import GGUF_PRE_TOKENIZER_SPLITS, read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(file))
    kind = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if metadata.get("tokenizer.ggml.model") != "gpt2" or kind in GGUF_PRE_TOKENIZER_SPLITS or kind in LIKE_GPT2:
        return
    if kind not in DIGITS_APART:
        raise UserError(
            f"{file.name} splits text in a way that is not known here (tokenizer.ggml.pre is {kind!r}), so that its "
            "tokens would be wrong; take the original model, in safetensors"
        )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
