"""A stand-in for vLLM 0.27.1: the calls that TRL and rlhf make, with vLLM's checks, around a small model on the CPU.

Names, defaults and checks are those of vllm/entrypoints/llm.py, sampling_params.py, v1/core/sched/utils.py (where a
response ends), v1/engine/detokenizer.py (stop strings) and entrypoints/openai/completion/protocol.py. Like vLLM it
keeps what it computed for a prefix until it is told to forget it, and takes EOS tokens from generation_config.json too.
"""

import json
import queue
import sys
import threading
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import torch

ENGINE_ARGUMENTS = {
    *("tokenizer", "trust_remote_code", "tensor_parallel_size", "dtype", "quantization", "seed", "enforce_eager"),
    *("gpu_memory_utilization", "max_model_len", "max_num_seqs", "enable_sleep_mode", "model_impl"),
    *("distributed_executor_backend", "max_num_batched_tokens", "logprobs_mode"),
}
WIRE: queue.Queue = queue.Queue()  # in place of NCCL


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    skip_special_tokens: bool = True

    def __post_init__(self):
        self.temperature = max(self.temperature, 0.01) if self.temperature else 0.0
        self.stop, self.stop_token_ids = self.stop or [], list(self.stop_token_ids or [])
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature must be in [0, 2], got {self.temperature}.")
        if not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if not all(isinstance(token, int) for token in self.stop_token_ids):
            raise ValueError(f"stop_token_ids must contain only integers, got {self.stop_token_ids}.")
        if any(not text for text in self.stop):
            raise ValueError("stop cannot contain an empty string.")
        if (self.top_p, self.top_k, self.min_p, self.repetition_penalty) != (1.0, 0, 0.0, 1.0):
            raise NotImplementedError("the stand-in samples from the whole distribution")


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list | None
    finish_reason: str | None
    stop_reason: int | str | None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list | None
    outputs: list[CompletionOutput]
    finished: bool = field(default=True)


class WorkerModel:
    """What holds the weights."""

    def __init__(self, model):
        self.model, self.loads = model, 0

    @torch.no_grad()
    def load_weights(self, weights):
        mine, loaded = dict(self.model.named_parameters()), set()
        for name, tensor in weights:
            if name not in mine:
                raise ValueError(f"There is no module or parameter named {name!r} in {type(self.model).__name__}")
            assert mine[name].shape == tensor.shape, f"{name}: {mine[name].shape} is not {tensor.shape}"
            mine[name].copy_(tensor)
            loaded.add(name)
        self.loads += 1
        return loaded


class LLM:
    def __init__(self, model, **engine_arguments):
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        if unknown := engine_arguments.keys() - ENGINE_ARGUMENTS:
            raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument {unknown.pop()!r}")
        network = AutoModelForCausalLM.from_pretrained(model).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        longest = network.config.max_position_embeddings
        self.max_model_len = engine_arguments.get("max_model_len") or longest
        if self.max_model_len > longest:
            raise ValueError(
                f"User-specified max_model_len ({self.max_model_len}) is greater than the derived max_model_len"
            )
        eos = GenerationConfig.from_pretrained(model).eos_token_id
        self.eos_token_ids = {self.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])}
        self.processed = engine_arguments.get("logprobs_mode", "raw_logprobs") == "processed_logprobs"
        self.generator = torch.Generator().manual_seed(engine_arguments.get("seed", 0))
        self.known: dict[tuple[int, ...], torch.Tensor] = {}
        self.asked: list[tuple[list[int], SamplingParams]] = []
        self.worker = WorkerModel(network)
        self.folder = model

    def apply_model(self, func):
        return [func(self.worker)]

    def reset_prefix_cache(self, reset_running_requests=False, reset_connector=False):
        self.known.clear()
        return True

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None, priority=None):
        if isinstance(sampling_params, SamplingParams):
            sampling_params = [sampling_params] * len(prompts)
        if len(prompts) != len(sampling_params):
            raise ValueError(
                f"The lengths of prompts ({len(prompts)}) and params ({len(sampling_params)}) must be the same."
            )
        self.asked += [(p["prompt_token_ids"], params) for p, params in zip(prompts, sampling_params, strict=True)]
        return [
            RequestOutput(str(i), None, p["prompt_token_ids"], None, self.samples(p["prompt_token_ids"], params))
            for i, (p, params) in enumerate(zip(prompts, sampling_params, strict=True))
        ]

    def samples(self, prompt, params):
        if len(prompt) >= self.max_model_len:
            raise ValueError(f"The decoder prompt (length {len(prompt)}) is longer than the maximum model length")
        return [self.one_sample(prompt, params, index) for index in range(params.n)]

    def one_sample(self, prompt, params, index):
        generator = self.generator
        if params.seed is not None:
            generator = torch.Generator().manual_seed(params.seed + index)
        ids, said, reason = [], [], None
        while reason is None:
            token, logprob = self.draw(tuple(prompt + ids), params, generator)
            ids.append(token)
            said.append({token: SimpleNamespace(logprob=logprob)})
            reason, why = self.end(prompt, ids, params)
        text = self.tokenizer.decode(ids, skip_special_tokens=params.skip_special_tokens)
        return CompletionOutput(index, text, ids, None, None if params.logprobs is None else said, reason, why)

    @torch.no_grad()
    def draw(self, prefix, params, generator):
        if prefix not in self.known:
            self.known[prefix] = self.worker.model(torch.tensor([prefix])).logits[0, -1].float()
        logits = self.known[prefix]
        if params.temperature == 0:
            return int(logits.argmax()), 0.0
        processed = (logits / params.temperature).log_softmax(-1)
        token = int(torch.multinomial(processed.exp(), 1, generator=generator))
        return token, float((processed if self.processed else logits.log_softmax(-1))[token])

    def end(self, prompt, ids, params):
        """Finish reason and stop reason after the last of the ids, (None, None) while there is more to come."""
        if not params.ignore_eos and ids[-1] in self.eos_token_ids:
            return "stop", None
        if ids[-1] in params.stop_token_ids:
            return "stop", ids[-1]
        text = self.tokenizer.decode(ids, skip_special_tokens=params.skip_special_tokens)
        if hit := next((stop for stop in params.stop if stop in text), None):
            return "stop", hit
        if len(ids) >= params.max_tokens or len(prompt) + len(ids) >= self.max_model_len:
            return "length", None
        return None, None


class Serve:
    """`vllm serve --enable-lora`: development mode has the endpoints that move weights.

    An adapter is loaded by PEFT, into a model of its own, with a prefix cache of its own.
    """

    def __init__(self, model, development_mode=True, **engine_arguments):
        self.llm, self.development_mode = LLM(model, **engine_arguments), development_mode
        self.requests: list[str] = []
        self.models = {"served": (self.llm.worker, self.llm.known)}
        self.lock = threading.Lock()
        serve = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                status, body = serve.answer(self.path, json.loads(self.rfile.read(length) or "{}"))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 2048  # as uvicorn's; with the 5 of Python, Linux resets connections of a batch

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path, body):
        self.requests.append(path)
        if path == "/health":
            return 200, {}
        if path == "/v1/models":
            return 200, {"data": [{"id": "served", "root": str(self.llm.folder)}]}
        if path == "/v1/completions":
            with self.lock:
                return self.completions(**body)
        if path == "/v1/load_lora_adapter":
            return self.load_adapter(**body)
        if path == "/v1/unload_lora_adapter":
            del self.models[body["lora_name"]]
            return 200, {}
        if not self.development_mode:
            return 404, {"detail": "Not Found"}
        if path == "/get_world_size":
            return 200, {"world_size": 1}
        if path == "/update_weights":
            self.receive(**body["update_info"])
        if path == "/reset_prefix_cache":
            self.llm.reset_prefix_cache()
        return 200, {}

    def load_adapter(self, lora_name, lora_path):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        if lora_name in self.models:
            return 400, {"error": f"The lora adapter '{lora_name}' has already been loaded."}
        base = AutoModelForCausalLM.from_pretrained(self.llm.folder)
        network = PeftModel.from_pretrained(base, lora_path).merge_and_unload().eval()
        self.models[lora_name] = WorkerModel(network), {}
        return 200, {}

    def receive(self, names, dtype_names, shapes, packed):
        for name, dtype, shape in zip(names, dtype_names, shapes, strict=True):
            tensor = WIRE.get(timeout=10)  # NCCL carries bytes: the name is the announced one
            assert (str(tensor.dtype), list(tensor.shape)) == (f"torch.{dtype}", shape)
            self.llm.worker.load_weights([(name, tensor)])

    def completions(self, model, prompt, return_token_ids, **sampling):
        known = {f.name for f in fields(SamplingParams)}
        if model not in self.models or not return_token_ids or sampling.keys() - known:
            return 400, {"error": f"bad request: {model} {sampling}"}
        self.llm.worker, self.llm.known = self.models[model]
        outputs = self.llm.generate([{"prompt_token_ids": prompt}], SamplingParams(**sampling))
        choices = [
            {
                "prompt_token_ids": output.prompt_token_ids,
                **{name: getattr(each, name) for name in ("text", "token_ids", "finish_reason")},
                "logprobs": None if each.logprobs is None else self.spelled(each.logprobs),
            }
            for output in outputs
            for each in output.outputs
        ]
        return 200, {"choices": choices}

    @staticmethod
    def spelled(said):
        """Log-probabilities of sampled tokens as the completions endpoint spells them."""
        pairs = [next(iter(at.items())) for at in said]
        tokens, logprobs = [f"token_id:{token}" for token, _ in pairs], [each.logprob for _, each in pairs]
        tops = [{token: logprob} for token, logprob in zip(tokens, logprobs, strict=True)]
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops}


class NCCLWeightTransferEngine:
    @staticmethod
    def trainer_init(init_info):
        assert init_info.keys() == {"master_address", "master_port", "rank_offset", "world_size"}
        return SimpleNamespace(group=SimpleNamespace(store=None, socket=None))

    @staticmethod
    def trainer_send_weights(iterator, trainer_args):
        for _, tensor in iterator:
            WIRE.put(tensor.clone())


@dataclass
class NCCLTrainerSendWeightsArgs:
    group: SimpleNamespace
    src: int = 0
    packed: bool = False


def modules() -> dict[str, ModuleType]:
    """The modules of vLLM that are imported, by name, for sys.modules."""
    contents = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams, "RequestOutput": RequestOutput, "__version__": "0.27.1"},
        "vllm.sampling_params": {"StructuredOutputsParams": None},
        "vllm.distributed.weight_transfer.nccl_engine": {
            "NCCLWeightTransferEngine": NCCLWeightTransferEngine,
            "NCCLTrainerSendWeightsArgs": NCCLTrainerSendWeightsArgs,
        },
        "vllm.utils.network_utils": {"get_ip": lambda: "127.0.0.1"},
    }
    packages = ("vllm.distributed", "vllm.distributed.weight_transfer", "vllm.utils")
    made = {}
    for name, content in ({package: {} for package in packages} | contents).items():
        made[name] = ModuleType(name)
        made[name].__spec__, made[name].__path__ = ModuleSpec(name, None), []
        vars(made[name]).update(content)
    return made


def install(set_module=sys.modules.__setitem__, remove_module=sys.modules.pop) -> None:
    """Put the stand-in where vLLM would be; TRL looks for it when its modules are imported, so those start afresh."""
    for name in [name for name in sys.modules if name.startswith("trl.generation")]:
        remove_module(name)
    for name, module in modules().items():
        set_module(name, module)


def send_from_cpu(client_class, set_attribute=setattr) -> None:
    """Let TRL's client, which refuses to send weights from anything but a GPU, believe that it is on one."""
    real = client_class.init_communicator
    set_attribute(client_class, "init_communicator", lambda self, device=0: real(self, "cuda"))
