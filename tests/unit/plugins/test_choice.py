# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instance ranks where, and what it says about it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _choice, _fit, _instances
from ansible_collections.llmops.eks.plugins.module_utils._choice import Wish, rank
from ansible_collections.llmops.eks.plugins.module_utils._fit import Engine
from ansible_collections.llmops.eks.plugins.module_utils._prices import Price, Prices

LLAMA = _fit.ModelDescription.from_table("meta-llama/Llama-3.1-8B-Instruct")
LARGE = _fit.ModelDescription.from_table("meta-llama/Llama-3.3-70B-Instruct")
SMALL_GPUS = Wish(gpu_names=("l4", "a10g"))
LENGTH_16K = Engine(max_model_len=16384)


class FixedPrices(Prices):
    """Prices of a test; types that are not named cost 50 USD an hour."""

    def __init__(self, **prices):
        super().__init__()
        self.fixed = {name.replace("_", "."): price for name, price in prices.items()}

    def of(self, instance_type):
        price = self.fixed.get(instance_type, 50.0)
        return price if isinstance(price, Price) else Price(price, None, "test")


def ranked(model=LLAMA, engine=LENGTH_16K, wish=SMALL_GPUS, prices=None):
    return rank(model, engine, wish, prices or Prices.table())


def first(*args, **kwargs):
    return ranked(*args, **kwargs).candidates[0].row()


def test_the_cheapest_type_that_fits_ranks_first_and_a_lower_price_changes_that():
    assert first()["instance_type"] == "g6.2xlarge"
    row = first(prices=FixedPrices(g5_2xlarge=0.9, g6_2xlarge=1.0))
    assert row["instance_type"] == "g5.2xlarge"
    assert row["usd_per_hour"] == {"on_demand": 0.9, "spot": None}
    assert row["why"] == "cheapest of 20 that fit; the next, g6.2xlarge with tensor_parallel_size 1, costs 11% more an hour"


def test_what_does_not_fit_ranks_nowhere_however_cheap():
    ranking = ranked(LARGE, Engine(max_model_len=8192), Wish(gpu_names=("l4", "l40s")), FixedPrices(g6_2xlarge=0.01, g6_12xlarge=0.02))
    assert "g6.12xlarge" not in {c.instance.name for c in ranking.candidates}
    reason = next(reason for reason, types in ranking.rejected.items() if "g6.12xlarge" in types)
    assert reason.startswith("NO, 15.4 GiB a GPU short on L4 with tensor_parallel_size 4; first change that fits: use an AWQ checkpoint")


def test_tight_ranks_below_all_that_fit():
    # The length at which one A10G or L4 is TIGHT, and an L40S is not.
    ranking = ranked(engine=Engine(max_model_len=30720), wish=Wish(gpu_names=("l4", "l40s"), tensor_parallel_size=1))
    verdicts = [c.fit.verdict for c in ranking.candidates]
    assert verdicts == sorted(verdicts)
    assert set(verdicts) == {"FITS", "TIGHT"}
    assert ranking.candidates[0].instance.name == "g6e.2xlarge"
    tight = next(c for c in ranking.candidates if c.fit.verdict == "TIGHT")
    assert tight.best < ranking.candidates[0].best
    assert "ranks below all that FIT" in tight.why


def test_spot_prices_count_only_where_spot_is_allowed():
    prices = FixedPrices(g6_2xlarge=Price(1.0, 0.9, "test"), g5_2xlarge=Price(1.2, 0.4, "test"))
    assert first(prices=prices)["instance_type"] == "g6.2xlarge"
    both = replace(SMALL_GPUS, capacity_types=("on-demand", "spot"))
    row = first(wish=both, prices=prices)
    assert (row["instance_type"], row["usd_per_hour"]) == ("g5.2xlarge", {"on_demand": 1.2, "spot": 0.4})
    speed = row["tokens_per_second"]["expected"]
    assert row["usd_per_million_tokens"]["low"] == pytest.approx(0.4 / (speed * 3600) * 1e6, rel=0.01)


def test_spot_without_known_spot_prices_goes_by_the_price_on_demand():
    only = replace(SMALL_GPUS, capacity_types=("spot",))
    assert first(wish=only)["instance_type"] == "g6.2xlarge"
    assert first(wish=only)["usd_per_million_tokens"] == first()["usd_per_million_tokens"]


def test_where_spot_prices_are_known_a_type_without_one_ranks_last():
    prices = FixedPrices(g6_2xlarge=1.0, g5_2xlarge=Price(1.2, 0.4, "test"))
    prices._spot = {"g5.2xlarge": 0.4}
    ranking = ranked(wish=replace(SMALL_GPUS, capacity_types=("spot",)), prices=prices)
    assert ranking.candidates[0].instance.name == "g5.2xlarge"
    assert {c.best for c in ranking.candidates[1:]} == {None}
    counts = [c.instance.gpu_count for c in ranking.candidates[1:]]
    assert counts == sorted(counts)  # the fewest GPUs first


def test_cost_is_stated_fully_used_and_a_quarter_of_the_time():
    cost = first()["usd_per_million_tokens"]
    assert cost["utilisation"] == [1.0, 0.25]
    assert cost["high"] == pytest.approx(4 * cost["low"], rel=0.01)


def test_the_speed_is_a_range():
    speed = first()["tokens_per_second"]
    assert speed["low"] < speed["expected"] < speed["high"]


def test_of_the_same_price_the_faster_ranks_first_and_says_so():
    ranking = ranked(prices=FixedPrices(g6_2xlarge=1.0, g5_2xlarge=1.0))
    one, two = ranking.candidates[:2]
    assert (one.instance.name, two.instance.name) == ("g5.2xlarge", "g6.2xlarge")
    assert one.rate.output_tokens_s > two.rate.output_tokens_s
    assert "same price as g6.2xlarge with tensor_parallel_size 1, more tokens/s" in one.why
    assert "same price as g5.2xlarge with tensor_parallel_size 1, fewer tokens/s" in two.why


def test_the_next_dearer_ones_say_what_they_cost_a_token():
    ranking = ranked(wish=Wish(gpu_names=("l4", "l40s")))
    larger = next(c for c in ranking.candidates if c.instance.name == "g6e.2xlarge")
    assert larger.why.startswith("+129% an hour against g6.2xlarge with tensor_parallel_size 1 for ")
    assert "% a token)" in larger.why


def test_a_type_without_a_price_ranks_last():
    ranking = ranked(wish=Wish(gpu_names=("h200", "h100"), tensor_parallel_size=8))
    assert ranking.candidates[-1].instance.name == "p5e.48xlarge"
    assert ranking.candidates[-1].row()["usd_per_million_tokens"] is None
    assert "no price known" in ranking.candidates[-1].why


def test_wanted_requests_come_before_the_price():
    row = first(wish=Wish(gpu_names=("l4", "a10g", "l40s"), concurrent_requests=64))
    assert (row["instance_type"], row["max_num_seqs"], row["concurrent_requests"]) == ("g6e.2xlarge", 64, 64)
    assert "that fit and hold 64 requests" in row["why"]
    few = ranked(wish=replace(SMALL_GPUS, concurrent_requests=64, tensor_parallel_size=1)).candidates[0]
    assert not few.enough
    assert "holds 24 of the 64 wanted requests at once" in few.why


def test_sequences_follow_the_cache_and_the_usual_length():
    short, long = (first(wish=replace(SMALL_GPUS, prompt_tokens=tokens, answer_tokens=256))["max_num_seqs"] for tokens in (256, 4096))
    assert short > 24 > long >= 8
    fit = _choice.settle(LLAMA, _fit.find_gpu("l4"), Engine(max_model_len=16384), SMALL_GPUS)
    assert fit.concurrency_expected >= fit.engine.max_num_seqs
    assert _fit.estimate(LLAMA, fit.gpu, replace(fit.engine, max_num_seqs=fit.engine.max_num_seqs + 8), 1280).concurrency_expected < fit.engine.max_num_seqs + 8


def test_requests_that_are_wanted_are_not_cut_at_vllms_default_for_the_gpu():
    small = _fit.ModelDescription.from_table("meta-llama/Llama-3.2-1B-Instruct")
    chat = Wish(prompt_tokens=64, answer_tokens=64, gpu_names=("l4", "h100"))
    engine = Engine(max_model_len=2048)
    assert _choice.settle(small, _fit.find_gpu("l4"), engine, chat).engine.max_num_seqs == 256
    assert _choice.settle(small, _fit.find_gpu("l4"), engine, replace(chat, concurrent_requests=1000)).engine.max_num_seqs == 1000
    row = first(small, engine, replace(chat, concurrent_requests=1000))
    assert (row["gpu_name"], row["concurrent_requests"]) == ("L4", 1000)
    # A batch holds a token of each.
    assert _choice.settle(small, _fit.find_gpu("h100"), engine, replace(chat, concurrent_requests=10_000)).engine.max_num_seqs == 8192


def test_where_nothing_fits_for_another_reason_the_length_is_not_cut():
    wish = Wish(gpu_names=("l4",))
    fit = _choice.settle(LLAMA, _fit.find_gpu("l4"), Engine(gpu_memory_utilization=0.99), wish)
    assert fit.verdict == "TIGHT"  # too little memory outside the budget
    assert fit.engine.max_model_len > 30_000
    assert fit.roomy
    short = _fit.ModelDescription.from_table("meta-llama/Llama-3.2-1B-Instruct")
    whole = _choice.settle(replace(short, max_model_len=16384), _fit.find_gpu("l4"), Engine(gpu_memory_utilization=0.99), wish)
    assert (whole.verdict, whole.engine.max_model_len) == ("TIGHT", 16384)


def test_a_length_that_nobody_gave_is_the_models_own_or_the_longest_that_fits():
    ranking = ranked(engine=Engine(), wish=Wish(gpu_names=("l4", "l40s"), tensor_parallel_size=1))
    lengths = {c.instance.gpu_name: c.fit.engine.max_model_len for c in ranking.candidates}
    assert lengths["l40s"] == LLAMA.max_model_len
    assert 8192 <= lengths["l4"] < LLAMA.max_model_len
    longer = _fit.estimate(LLAMA, _fit.find_gpu("l4"), Engine(max_model_len=lengths["l4"] + 1024, max_num_seqs=24), 1280)
    assert ranking.candidates[0].fit.verdict == "FITS" != longer.verdict


def test_a_fixed_size_is_kept_and_a_free_one_goes_with_the_node():
    assert {c.tensor_parallel for c in ranked(wish=replace(SMALL_GPUS, tensor_parallel_size=2)).candidates} == {2}
    assert first(LARGE, Engine(max_model_len=8192), Wish(gpu_names=("l40s",)))["tensor_parallel_size"] == 4
    half = ranked(wish=replace(SMALL_GPUS, tensor_parallel_size=2)).candidates[0]
    assert "2 replicas fill the node" in half.why


def test_only_the_smallest_node_for_a_size_is_taken():
    ranking = ranked(wish=replace(SMALL_GPUS, tensor_parallel_size=4))
    assert {c.instance.gpu_count for c in ranking.candidates} == {4}
    reason = next(reason for reason, types in ranking.rejected.items() if "g6.48xlarge" in types)
    assert reason == "8 GPUs; smaller nodes with the same GPU are enough for a replica on 4"
    assert ranked(wish=Wish(instance_types=("g6.48xlarge",), tensor_parallel_size=4)).candidates[0].instance.name == "g6.48xlarge"


def test_every_gpu_type_is_either_ranked_or_rejected_with_a_reason():
    ranking = ranked(wish=Wish(gpu_names=("l4", "t4g", "v100", "h100")))
    served = {c.instance.name for c in ranking.candidates}
    refused = {name for types in ranking.rejected.values() for name in types}
    assert served | refused == set(_instances.table())
    assert not served & refused
    reasons = {name: reason for reason, types in ranking.rejected.items() for name in types}
    assert reasons["g6.xlarge"] == "4 vCPU for 1 GPU(s); vLLM keeps 6 busy"
    assert reasons["g5g.metal"].startswith("bare metal")
    assert reasons["g5g.4xlarge"].startswith("arm64")
    assert reasons["g5.2xlarge"] == "not allowed by gpu_names l4, t4g, v100, h100"


def test_types_that_are_named_are_taken_at_their_word():
    ranking = ranked(wish=Wish(instance_types=("g5.xlarge",)))
    assert [c.instance.name for c in ranking.candidates] == ["g5.xlarge"]
    assert ranking.candidates[0].row()["pod"] == {"cpu_m": 3600, "memory_mib": 13138}


def test_a_node_without_the_memory_for_the_server_is_rejected_unless_the_user_sets_it():
    both = Wish(instance_types=("g5.xlarge",), pipeline_parallel_size=1)
    vision = _fit.ModelDescription.from_table("Qwen/Qwen3-VL-2B-Instruct")
    ranking = ranked(vision, Engine(max_model_len=8192), both)
    assert ranking.candidates == ()
    assert "leaves 13138 MiB for the pod; the server needs 14 GiB" in ranking.rejected
    assert ranked(vision, Engine(max_model_len=8192), replace(both, any_memory=True)).candidates


def test_a_cheaper_type_that_is_not_allowed_is_named():
    ranking = ranked(LARGE, Engine(max_model_len=8192), Wish(gpu_names=("l40s",)))
    assert ranking.elsewhere.instance.name == "g7e.12xlarge"
    assert "not allowed by gpu_names l40s; it would fit for 8.29 USD/h with tensor_parallel_size 2" in ranking.rejected
    assert ranked(wish=Wish(gpu_names=("l4",))).elsewhere is None


def test_only_sizes_that_vllm_can_split_the_model_over_are_tried():
    assert Wish().sizes(_fit.ModelDescription.from_table("microsoft/phi-4")) == (1, 2)  # 10 KV heads


def test_a_size_that_does_not_divide_the_heads_says_so():
    ranking = ranked(wish=replace(SMALL_GPUS, tensor_parallel_size=3))
    assert ranking.candidates == ()
    assert any(reason.startswith("tensor_parallel_size 3 with 32 attention heads, needed a divisor") for reason in ranking.rejected)


def test_a_size_is_proposed_only_where_a_node_has_as_many_of_that_gpu():
    awq = LARGE.with_quantisation("awq")
    fit = _fit.estimate(awq, _fit.find_gpu("t4"), Engine(max_model_len=8192, max_num_seqs=8))
    fixed = Wish(tensor_parallel_size=1, gpu_names=("t4", "l4"))
    assert _choice.first_fix(fit, fixed).value == "4"
    assert _choice.first_fix(fit, replace(fixed, gpu_names=("t4g", "l4"))) is None  # at most two T4G on a node; eight L4 are of no use


def test_a_size_beyond_every_node_is_no_change_to_propose():
    # Only more than eight GPUs would do, which no node has.
    ranking = ranked(
        _fit.ModelDescription.from_table("deepseek-ai/DeepSeek-R1"), Engine(max_model_len=32768), Wish(gpu_names=("h100",), tensor_parallel_size=8)
    )
    assert ranking.candidates == ()
    fix = _choice.first_fix(ranking.nearest.fit, Wish(gpu_names=("h100",), tensor_parallel_size=8))
    assert fix is None or fix.change != "tensor_parallel_size"


def test_what_stands_in_for_the_choice_keeps_its_verdict_with_the_same_settings():
    ranking = ranked(engine=Engine(), wish=Wish(gpu_names=("l4", "a10g", "l40s")))
    group = _choice.same_setup(ranking, ranking.candidates[0], "stream")
    assert {c.instance.gpu_count for c in group} == {1}
    assert {c.tensor_parallel for c in group} == {1}
    assert all(_choice.with_settings(c, ranking.candidates[0], "stream").verdict == "FITS" for c in group)
    assert [c.best for c in group] == sorted(c.best for c in group)


def test_of_types_with_the_same_gpus_only_the_first_is_shown():
    shown = _choice.distinct(ranked().candidates)
    assert len({(c.fit.gpu.name, c.instance.gpu_count, c.tensor_parallel) for c in shown}) == len(shown)
    assert shown[0].instance.name == "g6.2xlarge"


def test_a_row_holds_what_the_architecture_page_lists():
    page = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("A candidate (`choice`, `alternatives`):")[1].split("\n\n")[1]
    listed = {name for line in table.splitlines()[2:] for name in line.split("|")[1].replace("`", "").replace(" ", "").split(",")}
    row = first()
    assert listed == set(row)
    assert json.loads(json.dumps(row)) == row
