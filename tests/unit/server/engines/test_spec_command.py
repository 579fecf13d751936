import json
import sys
from pathlib import Path
from typing import Any

import pytest

from server.assembly.bases import tool_call_parser
from server.assembly.stack import cores_of
from server.demo.build_base import SHIPPED_BASE
from server.engines.command import command
from server.engines.errors import EngineSpecInvalid
from server.engines.sizes import RANKS, slot_rank
from server.engines.spec import EngineSpec
from server.testing import fake_vllm


def spec(**changes: Any) -> EngineSpec:
    return EngineSpec(
        **{
            "engine": "engine-0",
            "model": "/models/demo",
            "base_name": "demo",
            "dtype": "float32",
            "device": "cpu",
            "port": 8411,
            **changes,
        }
    )


def flag(argv: tuple[str, ...], name: str) -> str:
    assert argv.count(name) == 1
    return argv[argv.index(name) + 1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "demo"}, "neither an absolute folder nor a hub name"),
        ({"model": "../demo"}, "neither an absolute folder nor a hub name"),
        ({"model": "owner/name"}, "needs a revision"),
        ({"revision": "main"}, "a folder has no revisions"),
        ({"engine": "Engine 0"}, "engine name"),
        ({"base_name": ""}, "base_name is empty"),
        ({"program": ()}, "nothing to start"),
        ({"port": 0}, "port 0"),
        ({"host": "0.0.0.0"}, "not loopback"),
        ({"max_loras": 0}, "max_loras"),
        ({"max_loras": 8, "max_cpu_loras": 7}, "read again from disk"),
        ({"max_lora_rank": 513}, "rank 513"),
        ({"max_lora_rank": 0}, "rank 0"),
        ({"max_model_len": 8}, "max_model_len"),
        ({"gpu_memory_utilization": 0.5}, "device is cpu"),
        ({"tensor_parallel_size": 2}, "device is cpu"),
        ({"device": "cuda", "kv_cache_gib": 2}, "device is cuda"),
        ({"device": "cuda", "cpu_cores": "0-1"}, "device is cuda"),
        ({"device": "cuda", "gpu_memory_utilization": 1.5}, "not a share"),
        ({"tool_call_parser": "--trust-remote-code"}, "no name of a parser"),
    ],
)
def test_contradictory_and_half_specified_engines_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineSpecInvalid, match=says):
        spec(**changes)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--trust-remote-code"],
        ["--tool-parser-plugin", "x.py"],
        ["--model=/other"],
        ["--lora-modules", "a=/x"],
        ["--max_cpu_loras=1"],
        ["--max-cpu-lora=1"],
        ["--enable_lora"],
        ["-tp=2"],
        ["-tp", "2"],
        ["--data-parallel-size=2"],
        ["--middleware=x"],
        ["--api-key=x"],
        ["--hf-overrides.x=1"],
        ["--max-num-seqs=4\n--api-key=x"],
        ["--max-num-seqs", "4"],
        ["--max-num-seqs=--api-key"],
        [""],
    ],
)
def test_extra_arguments_open_no_other_door(arguments: list[str]) -> None:
    with pytest.raises(EngineSpecInvalid, match="extra argument"):
        spec(extra_args=arguments)


def test_extra_arguments_set_how_fast_vllm_answers() -> None:
    given = ("--max-num-seqs=64", "--max-num-batched-tokens=8192", "--block-size=32")
    argv, _ = command(spec(extra_args=given), {})
    assert argv[-3:] == given


def test_all_faults_come_at_once() -> None:
    with pytest.raises(EngineSpecInvalid) as caught:
        spec(port=0, max_loras=0, base_name="")
    assert len(caught.value.facts["faults"]) >= 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rank", "slot"), [(1, 1), (2, 8), (8, 8), (9, 16), (129, 256), (300, 320), (512, 512)]
)
def test_ranks_are_rounded_up_to_what_vllm_takes(rank: int, slot: int) -> None:
    assert slot_rank(rank) == slot
    assert slot in RANKS


def test_the_cpu_cache_holds_every_name_that_one_boot_may_load() -> None:
    assert spec(max_loras=2).names >= 2
    assert spec(max_loras=20).names >= 20
    assert spec(max_loras=4, max_cpu_loras=5).names == 5
    argv, _ = command(spec(max_loras=4, max_cpu_loras=5), {})
    assert flag(argv, "--max-cpu-loras") == "6", "and the null adapter"


def test_the_command_serves_loras_safely_on_loopback() -> None:
    argv, environment = command(spec(max_lora_rank=12, max_model_len=1024), {})
    assert argv[0] == sys.executable
    assert flag(argv, "--host") == "127.0.0.1"
    assert flag(argv, "--max-lora-rank") == "16"
    assert flag(argv, "--max-model-len") == "1024"
    assert "--enable-lora" in argv
    assert "--disable-uvicorn-access-log" in argv
    assert "--enforce-eager" in argv
    structured = json.loads(flag(argv, "--structured-outputs-config"))
    assert structured == {"backend": "guidance", "disable_any_whitespace": True}
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert environment["VLLM_PLUGINS"] == ""
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"


def test_two_engines_of_a_machine_compute_on_different_cores() -> None:
    _, environment = command(spec(cpu_cores="2-3"), {})
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "2-3"
    assert [cores_of(number, 2, [0, 1]) for number in range(2)] == ["0", "1"]
    assert [cores_of(number, 2, [0, 2, 5]) for number in range(2)] == ["0,5", "2"]
    assert [cores_of(number, 3, [0, 1]) for number in range(3)] == ["0", "1", "0"]


def test_tools_are_called_where_a_parser_is_named() -> None:
    argv, _ = command(spec(), {})
    assert "--enable-auto-tool-choice" not in argv
    argv, _ = command(spec(tool_call_parser="hermes"), {})
    assert "--enable-auto-tool-choice" in argv
    assert flag(argv, "--tool-call-parser") == "hermes"
    assert fake_vllm.parser().parse_args(argv[3:]).tool_call_parser == "hermes"


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("<tool_call>\n<function=", None),
        ("{{ messages }}", None),
    ],
)
def test_the_parser_is_read_off_the_chat_template(tmp_path: Path, template: str, parser: str | None) -> None:
    assert tool_call_parser(tmp_path) is None
    (tmp_path / "chat_template.jinja").write_text(template)
    assert tool_call_parser(tmp_path) == parser


def test_the_demo_base_calls_tools() -> None:
    assert tool_call_parser(SHIPPED_BASE) == "hermes"


def test_a_gpu_gets_gpu_flags_and_a_hub_name_stays_online() -> None:
    argv, environment = command(
        spec(device="cuda", dtype="bfloat16", model="owner/name", revision="abc", tensor_parallel_size=2),
        {},
    )
    assert flag(argv, "--gpu-memory-utilization") == "0.9"
    assert flag(argv, "--tensor-parallel-size") == "2"
    assert flag(argv, "--revision") == "abc"
    assert "--enforce-eager" not in argv
    assert "HF_HUB_OFFLINE" not in environment
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment


def test_the_engine_inherits_only_what_the_allow_list_names() -> None:
    inherited = {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "TENON_SERVICE_TOKEN_FILE": "/secret",
        "VLLM_PLUGINS": "lora_filesystem_resolver",
        "VLLM_LORA_RESOLVER_CACHE_DIR": "/elsewhere",
        "VLLM_API_KEY": "k",
        "PYTHONPATH": "/evil",
    }
    _, environment = command(spec(), inherited)
    assert environment["PATH"] == "/bin"
    assert environment["HF_HOME"] == "/cache"
    assert environment["VLLM_PLUGINS"] == ""
    for name in ("TENON_SERVICE_TOKEN_FILE", "VLLM_LORA_RESOLVER_CACHE_DIR", "VLLM_API_KEY", "PYTHONPATH"):
        assert name not in environment


def test_routers_are_given_the_advertised_url() -> None:
    assert spec().public_url == "http://127.0.0.1:8411"
    wide = spec(host="0.0.0.0", advertised_url="http://pod-3:8411")
    assert wide.public_url == "http://pod-3:8411"
    assert wide.url == "http://127.0.0.1:8411"


@pytest.mark.parametrize(
    "given", [{}, {"device": "cuda"}, {"model": "o/n", "revision": "r"}, {"max_model_len": 512}]
)
def test_the_fake_engine_understands_every_flag(given: dict[str, Any]) -> None:
    argv, _ = command(spec(program=("fake",), **given), {})
    assert fake_vllm.parser().parse_args(argv[1:]).model == spec(**given).model
