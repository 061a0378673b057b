"""Names that libraries do not promise to keep: all stand in one file, and one that goes is a clear line."""

import ast
import inspect
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Trainer

from rlhf.models import private_names
from rlhf.models.private_names import HOOKS, NAMES, Private, look_up
from rlhf.stages.resumable import Resumable
from rlhf.stages.zero import ZeroResumable

PACKAGE = Path(__file__).parents[1] / "rlhf"
HOME = PACKAGE / "models/private_names.py"
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "trl", "datasets")
PUBLIC = {  # modules below the first level that the libraries document
    "accelerate.utils",
    "torch.autograd.function",
    "torch.distributed.device_mesh",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.nn.functional",
    "torch.optim.lr_scheduler",
    "torch.utils.checkpoint",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "transformers.modeling_outputs",
}
OURS = {
    "_asdict",
    "_checkpoint_gradients",
    "_early_stop",
}  # a NamedTuple's, and a method of the policy's that its classmethod calls


@pytest.mark.parametrize("name", [*NAMES, *HOOKS])
def test_it_is_there(name):
    """Its failure is an ImportError that names the path, the use and the way around it."""
    if name.startswith("VLLM"):
        pytest.importorskip("vllm", reason="TRL's transport imports vLLM")
    assert look_up((NAMES | HOOKS)[name]) is not None


def test_the_attributes_of_models_are_there():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=9, attn_implementation="sdpa"))
    model.config._name_or_path = "somewhere"
    assert isinstance(model, PreTrainedModel)
    assert private_names.block_names(model) == ("GPT2Block",)
    assert private_names.attention_name(model) == "sdpa"
    assert private_names.loaded_from(model) == "somewhere"


def test_one_that_has_gone_says_what_to_do():
    gone = Private("transformers.utils:cached_files_of_old", "files", "take another one")
    with pytest.raises(ImportError, match=r"cached_files_of_old is not in transformers \d.*for: files.*instead: take"):
        look_up(gone)
    with pytest.raises(ImportError, match=r"peft\.no\.module:x is not in peft \d"):
        look_up(Private("peft.no.module:x", "nothing", "nothing"))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = private_names.no_such_name


def test_the_hooks_are_all_that_is_overridden():
    defined = vars(Resumable).keys() | vars(ZeroResumable).keys()
    overridden = {name for name in defined if name.startswith("_") and hasattr(Trainer, name)}
    assert {name for name in overridden if not name.startswith("__")} == HOOKS.keys()
    assert "self._tr_loss" in inspect.getsource(Trainer), "Resumable.log clears a NaN from it"


def private_uses(path: Path) -> set[str]:
    """Attributes with an underscore on anything but self and cls, and modules that no library documents."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            inherited = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()" and node.attr in HOOKS
            if not own and not inherited:
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES:
            if "." in node.module and node.module not in PUBLIC:
                found.add(node.module)
            found |= {alias.name for alias in node.names if alias.name.startswith("_")}
        elif isinstance(node, ast.Import):
            deep = [alias.name for alias in node.names if alias.name.split(".")[0] in LIBRARIES and "." in alias.name]
            found |= {name for name in deep if name not in PUBLIC}
    return found - OURS


def test_no_other_file_uses_one():
    uses = {str(path): private_uses(path) for path in PACKAGE.rglob("*.py") if path != HOME}
    assert {path: names for path, names in uses.items() if names} == {}


def test_the_search_finds_them(tmp_path):
    code = "from peft.tuners.lora import X\nimport transformers.cache_utils\nmodel._no_split_modules\nself._own\n"
    (tmp_path / "code.py").write_text(code)
    assert private_uses(tmp_path / "code.py") == {"peft.tuners.lora", "transformers.cache_utils", "_no_split_modules"}
