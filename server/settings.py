"""Every setting of every process, read once at start from ``TENON_*`` environment variables.

This is the only module that looks at the environment. Each process role has one class; ``server.assembly``
splits it into frozen values and passes those down. Secrets are files (as Kubernetes mounts them), never
values. The chart sets exactly these variables; a test compares both.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.errors import SettingsInvalid

R = TypeVar("R", bound=BaseSettings)


class RoleSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TENON_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged")
    log_format: Literal["text", "json"] = Field("text", description="How log lines are written")
    service_token_file: Path = Field(description="Bearer token that Tenon's own processes show each other")


class StorageSettings(BaseSettings):
    """Where a registry keeps what it knows; the command line reads these too."""

    model_config = SettingsConfigDict(env_prefix="TENON_", extra="ignore", frozen=True)

    database_url_file: Path | None = Field(
        None,
        description="Secret with the registry's PostgreSQL URL; default: the workspace's own database",
    )
    s3_bucket: str | None = Field(
        None, min_length=3, description="Bucket for adapters' bytes; default: files in the workspace"
    )
    s3_prefix: str = Field("", description="Before every key in the bucket; ends with `/`")
    s3_endpoint: str | None = Field(
        None, pattern=r"^https?://", description="URL of an S3-compatible store; default: AWS"
    )
    s3_region: str = Field("us-east-1", min_length=1, description="Region of the bucket")
    s3_path_style: bool = Field(
        default=False, description="`endpoint/bucket/key` instead of `bucket.endpoint/key`"
    )
    s3_credentials_file: Path | None = Field(
        None,
        description="Secret in the form of AWS's credentials file; default: AWS's own chain, as a pod's role",
    )


class RegistrySettings(StorageSettings):
    """Of whoever opens a registry: the control plane, and the command line in a workspace folder."""

    max_adapter_rank: int = Field(
        64,
        ge=1,
        le=512,
        description="Largest rank of an adapter that the registry takes; up to 512, as `TENON_MAX_LORA_RANK`",
    )


class IdentitySettings(BaseSettings):
    """Whose tokens are taken beside keys, on both planes."""

    model_config = SettingsConfigDict(env_prefix="TENON_", extra="ignore", frozen=True)

    oidc_issuer: str | None = Field(
        None, pattern=r"^https?://", description="Issuer (`iss`) whose tokens are taken beside keys"
    )
    oidc_audience: str | None = Field(
        None, min_length=1, description="What such a token must be for (`aud`); required with an issuer"
    )
    oidc_jwks_url: str | None = Field(
        None, pattern=r"^https?://", description="The issuer's keys; https, but for this machine itself"
    )
    oidc_jwks_file: Path | None = Field(None, description="The issuer's keys as a file, instead of the URL")
    oidc_role_claim: str = Field("tenon_role", min_length=1, description="Claim that names the role")
    oidc_tenant_claim: str = Field("tenon_tenant", min_length=1, description="Claim that names the tenant")


class DiscoverySettings(BaseSettings):
    """Which engines there should be; ``tenon fleet`` beside the control plane reads these too."""

    model_config = SettingsConfigDict(env_prefix="TENON_", extra="ignore", frozen=True)

    engines_file: Path | None = Field(
        None, description="List of the engines that there should be, YAML; default: none is expected"
    )
    unlisted_engines: Literal["refuse", "flag"] = Field(
        "refuse", description="What becomes of an engine that is not listed, where anything lists engines"
    )
    kubernetes_services: str | None = Field(
        None,
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(,[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
        description="Services whose EndpointSlices list the engines; default: Kubernetes is not asked",
    )
    kubernetes_url: str = Field(
        "https://kubernetes.default.svc", pattern=r"^https?://[^/?#@]+/?$", description="The API server"
    )
    kubernetes_account: Path = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="Folder with the service account's `token`, `ca.crt` and `namespace`",
    )


class ControlSettings(RoleSettings, RegistrySettings, IdentitySettings, DiscoverySettings):
    """``tenon serve control``: the registry over HTTP."""

    control_port: int = Field(8401, ge=0, le=65535, description="Port of the control plane")
    engine_silence: float = Field(
        30.0, ge=0, description="Seconds without a word of its agent until an engine counts as down; 0: never"
    )
    workspace: Path = Field(description="Folder with the registry's database, blobs and keys")


class RouterSettings(RoleSettings, IdentitySettings):
    """``tenon serve router``: the data plane."""

    router_port: int = Field(8400, ge=0, le=65535, description="Port of the OpenAI-compatible API")
    control_url: str = Field(description="Base URL of the control plane")
    router_key_file: Path = Field(description="Ed25519 key that signs record heads and receipts")
    salt_file: Path = Field(description="Secret from which prefix-cache salts are derived")
    records_dir: Path = Field(description="Folder of the request audit trail; must survive restarts")
    retention_key_file: Path | None = Field(
        None, description="Secret that wraps tenants' keys, for policies with retention hmac or full"
    )
    writer: str = Field(
        "router-0", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Name of this router's chain"
    )
    peers: str | None = Field(
        None,
        pattern=r"^https?://[^,\s]+(,https?://[^,\s]+)*$",
        description="Base URLs of all routers, with commas, to find the receipts of their answers; a name "
        "with several addresses means a router at each",
    )
    keep_alive: int = Field(
        75, ge=1, description="Seconds that a client's connection may idle; more than the load balancer's"
    )
    drain: int = Field(15, ge=0, description="Seconds that requests under way get to finish at a stop")
    connect_timeout: float = Field(2.0, gt=0, description="Seconds to connect to an engine")
    first_byte_timeout: float = Field(
        300.0,
        gt=0,
        description="Seconds until an engine's first byte; without streaming, of the whole answer",
    )
    idle_timeout: float = Field(30.0, gt=0, description="Seconds between two bytes of an engine")
    max_staleness: float = Field(
        600.0, ge=1, description="Seconds without word from the registry until requests are refused"
    )
    engine_requests: int = Field(
        256, ge=1, description="Requests in one engine at a time, of all routers; vLLM's `max_num_seqs`"
    )
    queue_length: int = Field(1000, ge=0, description="Requests that may wait for an engine")
    queue_seconds: float = Field(30.0, gt=0, description="Longest wait for an engine; beyond it, 503")
    queue_aging: float = Field(
        1.0, gt=0, description="Seconds after which a waiting adapter gets another one's LoRA slot"
    )
    choices: int = Field(
        8, ge=1, le=128, description="Largest `n` of a request, times its prompts; policies may allow less"
    )
    prompt_token_bytes: float = Field(
        1.0, ge=1, le=4, description="Bytes of a prompt for which one token of a quota is reserved"
    )
    metrics_token_file: Path | None = Field(
        None, description="Bearer token that `/metrics` asks for; only with one does it name tenants"
    )
    access_log: bool = Field(default=False, description="A JSON line a request to standard output")
    traces_url: str | None = Field(
        None, pattern=r"^https?://", description="OTLP/HTTP collector, such as `http://host:4318/v1/traces`"
    )
    traces_ratio: float = Field(1.0, gt=0, le=1, description="Share of requests that are traced")


class UncertifiedSettings(BaseSettings):
    """What `tenon up` passes on to its engines."""

    model_config = SettingsConfigDict(env_prefix="TENON_", extra="ignore", frozen=True)

    allow_uncertified_engine: bool = Field(
        default=False, description="Run a vLLM that `tenon mixup` has not been run against on this device"
    )


class EngineSettings(UncertifiedSettings, RoleSettings):
    """``tenon serve engine``: the agent beside one vLLM."""

    engine: str = Field("engine-0", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Name of this engine")
    agent_port: int = Field(8410, ge=0, le=65535, description="Port of the agent's health and metrics")
    vllm_port: int = Field(8411, ge=1, le=65535, description="Port of the vLLM child")
    vllm_host: str = Field("127.0.0.1", description="Address the vLLM child listens on")
    vllm_socket: Path | None = Field(
        None, description="Unix socket of the vLLM child, instead of host and port; for routers beside it"
    )
    engine_url: str | None = Field(
        None, description="URL under which routers reach vLLM; default from host and port"
    )
    control_url: str = Field(description="Base URL of the control plane")
    engine_key_file: Path = Field(description="Ed25519 key that signs attestations")
    cache_dir: Path = Field(description="Node cache of adapters, by digest")
    cache_gib: float = Field(
        16.0,
        gt=0,
        description="GiB in that folder above which adapters go that nobody needs",
    )
    base: str = Field(description="Folder of the base model, or its hub name (fetched at start)")
    base_revision: str | None = Field(None, description="Hub revision, when base is a hub name")
    base_name: str = Field(description="Name under which the base is registered")
    device: Literal["cpu", "cuda"] = Field("cuda", description="What vLLM runs on")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Serving precision")
    max_loras: int = Field(8, ge=1, description="Adapters on the device at a time")
    max_lora_rank: int = Field(64, ge=1, description="Largest rank served")
    lora_sizes: Literal["wanted", "bound"] = Field(
        "wanted",
        description="What a boot of vLLM is sized for: `wanted`, the largest rank wanted of the engine when "
        "it starts, unless it stands alone (for a larger one it starts afresh while others serve), or "
        "`bound`, always `TENON_MAX_LORA_RANK`",
    )
    pool_size: int = Field(
        1, ge=1, description="How many engines like this one the deployment runs; one alone has the bounds"
    )
    max_model_len: int | None = Field(None, ge=16, description="Context length, tokens")
    kv_cache_gib: int = Field(1, ge=1, description="KV cache on a CPU, GiB")
    cpu_cores: str | None = Field(
        None,
        pattern=r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$",
        description="Cores that vLLM computes on, where that is a CPU, such as `0-3`; without it all engines "
        "of a machine take the same",
    )
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of GPU memory vLLM may take")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs of one engine")
    tool_call_parser: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$",
        description="vLLM's parser of the base's tool calls, such as `hermes`; else no `tool_choice` auto",
    )
    heartbeat: float = Field(
        30.0, gt=0, description="Seconds between rounds of attestations of what is resident, at least"
    )
    engine_drain: float = Field(
        30.0, ge=0, description="Seconds that requests under way get to finish when the agent is stopped"
    )
    fake_engine: bool = Field(default=False, description="Tests only: the fake vLLM")


def load(role: type[R], values: Mapping[str, Any] | None = None) -> R:
    """Settings of a role: ``values`` (by field name) over the environment; all faults in one error."""
    try:
        return role(**(values or {}))
    except ValidationError as error:
        faults = "; ".join(
            f"TENON_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        raise SettingsInvalid(f"settings are not usable: {faults}") from None


class TrainerSettings(BaseSettings):
    """``tenon train`` and ``tenon data``."""

    model_config = SettingsConfigDict(env_prefix="TENON_", extra="ignore", frozen=True)

    endpoint_key_file: Path | None = Field(
        None, description="API key for the teachers and judges that a recipe asks over HTTP"
    )
    endpoint_host: str | None = Field(
        None,
        pattern=r"^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$",
        description="The only host[:port] that this key is sent to; without a port, over HTTPS",
    )


class ShipSettings(StorageSettings):
    """``tenon record ship`` and ``tenon record prune``, beside a router."""

    ship_to: str | None = Field(
        None, min_length=1, description="Folder, `s3:PREFIX/`, or `registry`: where records are shipped to"
    )
    ship_seconds: float | None = Field(
        None, ge=1, description="Seconds between two times of shipping; default: once"
    )
    records_dir: Path | None = Field(
        None, description="Folder of the request audit trail; default: the workspace's"
    )
    control_url: str | None = Field(
        None, description="Control plane of `registry`; default: the workspace's own database"
    )
    service_token_file: Path | None = Field(None, description="Bearer token for it")
    router_key_file: Path | None = Field(
        None, description="`tenon record prune`: signs where a chain begins; default: the workspace's"
    )


def inherited_environment(*, storage: bool = False) -> dict[str, str]:
    """What child processes may inherit: enough to find programs, libraries and the user's caches; with
    ``storage`` also what AWS's chain of credentials looks at."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV")
    prefixes = ("HF_", "CUDA_", "NVIDIA_", "NCCL_", "XDG_", "SSL_", "OMP_", *(("AWS_",) if storage else ()))
    return {name: value for name, value in os.environ.items() if name in kept or name.startswith(prefixes)}


def names_vllm_plugin(name: str) -> bool:
    """Whether VLLM_PLUGINS names it. vLLM itself takes an unset VLLM_PLUGINS for all that are installed."""
    return name in os.environ.get("VLLM_PLUGINS", "").split(",")


def guard_spec_file() -> Path | None:
    """What the agent tells the guard inside vLLM: ``TENON_GUARD``, set by the agent alone, for its child."""
    named = os.environ.get("TENON_GUARD")
    return Path(named) if named else None


def whole_environment() -> dict[str, str]:
    """Of this process, as it is now: for a process that starts others and for no agent."""
    return dict(os.environ)


def replace_environment(environment: Mapping[str, str]) -> None:
    """For a process that was forked early and now begins its real life."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


class ClientSettings(BaseSettings):
    """Every command that works on a workspace folder or against a registry's URL."""

    model_config = SettingsConfigDict(env_prefix="TENON_", extra="ignore", frozen=True)

    workspace: str = Field(".tenon", min_length=1, description="Workspace folder, or URL of a control plane")
    key_file: Path | None = Field(
        None,
        description="API key for the URL in TENON_WORKSPACE, and for no other; instead of `tenon login`",
    )
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) to trust instead of the system's, for a registry's URL"
    )
    config_dir: Path | None = Field(
        None, description="Where logins are kept; default `$XDG_CONFIG_HOME/tenon`, else `~/.config/tenon`"
    )


def config_folder(given: ClientSettings) -> Path:
    """Where this user's logins are kept."""
    if given.config_dir is not None:
        return given.config_dir
    shared = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG base directory specification: a relative path there is to be ignored.
    return (Path(shared) if Path(shared).is_absolute() else Path.home() / ".config") / "tenon"
