# SPDX-License-Identifier: GPL-3.0-or-later
"""Every figure of docs/plan.md is what the code computes: each sentence below is looked for on the page, and no digit may stand there outside of them."""

import re
from pathlib import Path

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _data, _fit, _fit_fix, _instances
from ansible_collections.llmops.eks.plugins.module_utils._fit_engine import version
from ansible_collections.llmops.eks.plugins.module_utils._fit_roofline import dollars_per_million, throughput
from ansible_collections.llmops.eks.plugins.module_utils._fit_weights import parameters
from ansible_collections.llmops.eks.plugins.module_utils._plan_summary import table
from planned_models import GUIDES, planned

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "plan.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
GIB, MIB = 2**30, 2**20
LLAMA_8B = _fit.ModelDescription.from_table("meta-llama/Llama-3.1-8B-Instruct")
LLAMA_70B = _fit.ModelDescription.from_table("meta-llama/Llama-3.3-70B-Instruct")
A10G, T4 = _fit.find_gpu("A10G"), _fit.find_gpu("T4")
CONSTANTS = _data.load("fit_constants")
# Names of things, versions and settings: no figures.
NAMES = (
    r"Llama-3\.1-8B|llama-3-1-8b|FP8|A10G|T4|S3|bfloat16|float32|70B|8B|128k|24 GB|g\d\w*\.\d*xlarge|vLLM 0\.18|vLLM is 0\.33|since 0\.10"
    r"|max_model_len: 8192|max_num_seqs: 64|EC2|16-bit|16 bits|plan\.html"
)


def estimate(model=LLAMA_8B, gpu=A10G, quantisation=None, **settings):
    model = model.with_quantisation(quantisation) if quantisation else model
    return _fit.estimate(model, gpu, _fit.Engine(**({"max_model_len": 8192, "max_num_seqs": 64} | settings)), 1280)


def constant(name):
    return CONSTANTS["budget"][name]["value"]


def term(fit, name):
    return f"{fit.limiting.gib(name):.2f}"


def bill():
    """The table of the derivation."""
    fit, instance = estimate(), _instances.table()["g5.xlarge"]
    total, _used = parameters(LLAMA_8B)
    block = 16 * 2 * LLAMA_8B.kv_heads * LLAMA_8B.head_dim * 2 * LLAMA_8B.layers
    graphs = int(next(t for t in fit.terms if t.name == "cuda_graphs").why.split()[0])
    utilisation, length = fit.engine.gpu_memory_utilization, fit.engine.max_model_len
    factor = CONSTANTS["gpus"]["A10G"]["factor"]
    assert fit.verdict == _fit.FITS
    assert fit.gpu.visible_gib == pytest.approx(instance.gpu_memory_mib / 1024 * factor, abs=0.01)
    assert {t.name for t in fit.terms} == {"weights", "activation", "penalty_state", "non_torch", "cuda_graphs"}
    return [
        f"| visible memory | {A10G.visible_gib} | EC2 says {instance.gpu_memory_mib:,} MiB, {instance.gpu_memory_mib / 1024:.2f} GiB;"
        f" CUDA reports {factor} of it |",
        f"| budget | {fit.limiting.budget_gib:.2f} | {utilisation} x {A10G.visible_gib} |",
        f"| - weights | {term(fit, 'weights')} | {total / 1e9:.2f} billion parameters in 2 bytes",
        f"| - activations | {term(fit, 'activation')} |",
        f"| - penalty state | {term(fit, 'penalty_state')} | 64 sequences x {LLAMA_8B.vocabulary:,} vocabulary"
        f" x {constant('v2_penalties_bytes_per_logit')} bytes |",
        f"| - CUDA libraries | {term(fit, 'non_torch')} |",
        f"| - CUDA graphs | {term(fit, 'cuda_graphs')} | {graphs} graphs x {LLAMA_8B.layers} layers x {constant('graph_mib_per_layer_and_graph')} MiB |",
        f"| = KV cache | {fit.available_gib:.2f} | {fit.kv_blocks:,} blocks of 16 tokens: {fit.kv_tokens:,} tokens |",
        f"| - one request of {length:,} tokens | {fit.needed_gib:.2f} | {length // 16} blocks of {block // MIB} MiB |",
        f"| = to spare | {planned(GUIDES)[0][0]['fit']['margin_gib']:.2f} | at least {CONSTANTS['verdict']['fits_margin_gib']:g} GiB: FITS |",
        f"FITS begins at {CONSTANTS['verdict']['fits_margin_gib']:g} GiB",
        f"is its default, {utilisation}.",
    ]


def shapes():
    """What the weights, activations and KV cache are made of."""
    model, fit = LLAMA_8B, estimate()
    hidden, inner, keys = model.hidden, model.intermediate, model.kv_heads * model.head_dim
    queries, key_values, mlp = 2 * hidden * model.heads * model.head_dim, 2 * hidden * keys, 3 * hidden * inner
    # Norms are 4 x hidden a layer, too few to be seen.
    layers = model.layers * (queries + key_values + mlp + 4 * hidden) * 2 / GIB
    tables, rotary = 2 * model.vocabulary * hidden * 2 / GIB, model.rotary_elements * 2 / GIB
    assert layers + tables + rotary == pytest.approx(fit.weights_gib, abs=0.001)
    batch, compiling = fit.engine.max_num_batched_tokens, version(fit.engine.vllm_version).constants["cold_compile_gib"]
    widest = batch * (3 * inner + 4 * hidden) * 2 / GIB
    assert widest + compiling + constant("profile_residual_gib") == pytest.approx(fit.limiting.gib("activation"), abs=0.001)
    token = 2 * keys * 2 * model.layers
    return [
        f"{model.layers} layers, {hidden:,} hidden and {inner:,} intermediate elements, {model.heads} attention heads, {model.kv_heads} KV heads of"
        f" {model.head_dim} elements, and a vocabulary of {model.vocabulary:,}.",
        f"{queries / 1e6:.1f} million parameters for queries and output (2 x {hidden:,} x {hidden:,}), {key_values / 1e6:.1f} million for keys and values"
        f" (2 x {hidden:,} x {keys:,}), and {mlp / 1e6:.1f} million in its MLP (3 x {hidden:,} x {inner:,})."
        f" {model.layers} layers in 2 bytes are {layers:.2f} GiB.",
        f"two matrices of {model.vocabulary:,} x {hidden:,}: {tables:.2f} GiB.",
        f"{model.max_model_len:,} positions x {model.head_dim} elements: {rotary:.2f} GiB.",
        f"the largest batch once, {batch:,} tokens",
        f"{batch:,} x (3 x {inner:,} + 4 x {hidden:,}) x 2 bytes = {widest:.2f} GiB.",
        f"takes {compiling} GiB, and {constant('profile_residual_gib')} GiB stay unexplained",
        f"{model.kv_heads} heads x {model.head_dim} elements in 2 bytes for each of {model.layers} layers: {token:,} bytes, {token // 1024} KiB."
        f" A block of 16 tokens is {16 * token // MIB} MiB, and {fit.available_gib:.2f} GiB hold {fit.kv_blocks:,} of them.",
    ]


def service():
    """Requests, speed, cost."""
    fit, facts, instance = estimate(), CONSTANTS["roofline"], _instances.table()["g5.xlarge"]
    rate = throughput(fit, 1024, 256, 64)
    held, terms, seconds = fit.concurrency_expected, rate.terms, rate.step_ms / 1000
    total, used = parameters(LLAMA_8B)
    weights = (total - LLAMA_8B.vocabulary * LLAMA_8B.hidden) * fit.weights_gib * GIB / total
    cache = held * _fit.kv_layout(LLAMA_8B, fit.engine).bytes_per_request(1024 + 128)
    prompts = held * 1024 / 256
    assert rate.requests == held
    assert terms["memory"] == pytest.approx(1000 * (weights + cache) / (facts["bandwidth_share"] * A10G.bandwidth * 1e9))
    assert terms["prefill"] == pytest.approx(1000 * 2 * used * prompts / (facts["prefill_share"] * A10G.bf16_tflops * 1e12))
    price = instance.price
    source = _data.load("instances")
    return [
        f"{fit.kv_tokens:,} tokens are {fit.concurrency:.2f} requests of 8,192 tokens. Of the expected 1,280 tokens (1,024 prompt, 256 answer) they are {held}:"
        f" the 64 sequences that are allowed never run at once, {int(held)} do.",
        f"one token for each of {held} requests. It reads {weights / 1e9:.1f} GB of weights and {cache / 1e9:.1f} GB of KV cache at"
        f" {facts['bandwidth_share']} of {A10G.bandwidth} GB/s: {terms['memory']:.1f} ms.",
        f"meanwhile, {prompts:.0f} tokens, at {facts['prefill_share']} of {A10G.bf16_tflops} TFLOPS: {terms['prefill']:.1f} ms."
        f" The host takes {terms['host']:.1f} ms. {held} tokens in {seconds * 1000:.1f} ms are {rate.output_tokens_s:.0f} tokens/s;"
        f" measured dense models lie between {rate.low:.0f} and {rate.high:.0f}. Prompts take {terms['prefill'] / rate.step_ms:.0%} of the step:".replace(
            "%", " %"
        ),
        f"g5.xlarge costs ${price} an hour ({source['region']}, {source['as_of']}). At {rate.output_tokens_s:.0f} tokens/s a million output tokens cost"
        f" ${dollars_per_million(price, rate.output_tokens_s):.2f}, and ${dollars_per_million(price, rate.output_tokens_s, 0.25):.2f} when",
    ]


def pod():
    """Start and host, as the plan has them."""
    facts, instance, model = _data.load("vllm")["startup"], _instances.table()["g5.xlarge"], planned(GUIDES)[0][0]
    free = planned({key: value for key, value in GUIDES.items() if key != "instance_types"})[0][0]["choice"]
    size, share = model["weights"]["size_gib"], facts["stream_nic_share"]
    speed = instance.network_gbps * share / 8.59
    cpu, memory = instance.share(1)
    parts = dict(re.findall(r"(API server and engine|worker\(s\) x 4|streaming buffers 1 x 4) (\d+) GiB", " ".join(model["explain"]["resources.memory"])))
    assert model["resources"]["memory"] == "10Gi"
    assert sum(map(int, parts.values())) == 10
    return [
        f"Imports {facts['import_seconds']} s, {size:.1f} GiB at {speed:.2f} GiB/s ({share} of g5.xlarge's {instance.network_gbps:g} Gbit/s),"
        f" compiling and graphs {facts['compile_seconds']} s: {model['choice']['startup_seconds']} s. The startup probe allows {facts['safety']} times as much,"
        f" {model['budgets']['startup']} s.",
        f"offers pods {instance.allocatable_cpu_m:,}m CPU and {instance.allocatable_memory_mib:,} MiB. Daemonsets take {_instances.DAEMONSETS_CPU_M}m and"
        f" {_instances.DAEMONSETS_MEMORY_MIB:,} MiB of that: {cpu:,}m and {memory:,} MiB are left. The server asks for 10 GiB: API server and engine"
        f" {parts['API server and engine']}, worker {parts['worker(s) x 4']}, streaming buffers {parts['streaming buffers 1 x 4']}.",
        f"its {instance.vcpu} vCPU are fewer than the {_instances.vcpus_needed(1)} that vLLM keeps busy with one GPU."
        f" It takes {free['instance_type']}, for ${free['usd_per_hour']['on_demand']:.3f}.",
    ]


def guide():
    """The statements of the guide, one row each."""
    own = estimate(gpu_memory_utilization=0.90)
    per_length = {length: estimate(max_model_len=length).needed_gib for length in (8192, 16384, 32768)}
    four, eight = {"model": LLAMA_70B, "tensor_parallel": 4}, {"model": LLAMA_70B, "tensor_parallel": 8}
    fp8, awq = estimate(**four, quantisation="fp8"), estimate(**four, quantisation="awq")
    many, few = estimate(max_num_seqs=256), estimate(max_num_seqs=64)
    half = estimate(gpu=T4, dtype="half")
    low = estimate(gpu_memory_utilization=0.85)
    long = {(name, cache): estimate(max_model_len=131072, quantisation=name, kv_cache_dtype=cache) for name in ("fp8", "awq") for cache in ("auto", "fp8")}
    assert (fp8.verdict, awq.verdict, half.verdict) == (_fit.TIGHT, _fit.FITS, _fit.NO)
    assert {key: fit.verdict for key, fit in long.items()} == {key: _fit.FITS if key[1] == "fp8" else _fit.NO for key in long}
    default = estimate(**eight, max_num_seqs=None)
    assert default.engine.max_num_seqs == 256
    assert default.margin_gib < 0 < estimate(**eight).margin_gib
    assert low.weights_gib == few.weights_gib
    g5 = _instances.table()["g5.xlarge"]
    return [
        f"{own.available_gib:.2f} GiB of KV cache: {own.kv_tokens:,} tokens, {own.concurrency:.2f} requests of full length."
        f" 64 sequences run at once only up to {own.kv_tokens // 64} tokens each",
        f"linearly: 8,192 tokens take {per_length[8192]:.2f} GiB, 16,384 take {per_length[16384]:.2f}, 32,768 take {per_length[32768]:.2f}",
        f"the weights alone are {estimate(**four).weights_gib:.2f} GiB on each of four GPUs with {A10G.visible_gib}. FP8 leaves"
        f" {fp8.available_gib:.2f} GiB of KV cache: TIGHT. AWQ leaves {awq.available_gib:.2f} GiB, {awq.kv_tokens:,} tokens: FITS."
        f" On the eight GPUs of g5.48xlarge 16 bits leave {estimate(**eight).available_gib:.2f} GiB with 64 sequences"
        f" and {default.available_gib:.2f} GiB with vLLM's default of 256, which is less than one"
        " request of 8,192 tokens takes",
        f"A10G has compute capability {A10G.capability}, bfloat16 needs 8.0. T4, with {T4.capability}, needs half, and there 8B lacks"
        f" {-half.available_gib:.2f} GiB before the first token of KV cache. float32 doubles the weights to {estimate(dtype='float32').weights_gib:.2f} GiB",
        f"From 0.92 to 0.85 the KV cache shrinks by {few.available_gib - low.available_gib:.2f} GiB to {low.available_gib:.2f}, and nothing else does."
        f" Fewer sequences help: from 256 to 64 the KV cache grows by {few.available_gib - many.available_gib:.2f} GiB",
        f"in 16 bits the longest request has {_fit_fix.longest_model_len(few):,} tokens. FP8 weights leave {long['fp8', 'auto'].kv_tokens:,} tokens, AWQ"
        f" {long['awq', 'auto'].kv_tokens:,}: still NO. Only with an FP8 KV cache too does 131,072 fit: {long['fp8', 'fp8'].kv_tokens:,} and"
        f" {long['awq', 'fp8'].kv_tokens:,} tokens",
        f"the node offers {g5.allocatable_cpu_m:,}m and {g5.allocatable_memory_mib:,} MiB: the pod never starts",
    ]


# What the guide itself says, and settings of the comparison.
GIVEN = [
    "| 8B on g5.xlarge has comfortable headroom |",
    "| 4 CPU and 16Gi, limit 20Gi, on g5.xlarge |",
    "`gpu_memory_utilization` 0.90, 64 sequences, 8,192 tokens.",
    "$/1M tokens | output tokens",
]
SENTENCES = [*bill(), *shapes(), *service(), *pod(), *guide(), *GIVEN]


@pytest.mark.parametrize("sentence", SENTENCES, ids=range(len(SENTENCES)))
def test_the_page_says_what_the_code_computes(sentence):
    assert sentence in TEXT


def test_the_table_is_that_of_the_plan():
    shown = re.search(r"```text\n(.*?)\n```", PAGE, re.DOTALL)[1].splitlines()
    assert shown == table(*planned(GUIDES))[: len(shown)]
    assert len(shown) == 2


def test_no_figure_stands_outside_of_what_is_recomputed():
    rest = " ".join(re.sub(r"```.*?```|\]\([^)]*\)", " ", PAGE, flags=re.DOTALL).split())
    for sentence in sorted(SENTENCES, key=len, reverse=True):
        rest = rest.replace(sentence, " ")
    rest = re.sub(NAMES, "", rest)
    left = [rest[max(0, found.start() - 50) : found.end() + 30] for found in re.finditer(r"\d+", rest)]
    assert left == []
