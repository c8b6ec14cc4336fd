"""What an answer used, as each vendor tells it on ``/chat/completions``."""

from __future__ import annotations

from decimal import Decimal

from tests.fakes.vendor import Json, Used


def _sums(used: Used, completion: int) -> Json:
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": completion,
        "total_tokens": used.prompt + used.completion + used.reasoning,
    }


def openai(used: Used, cost: Decimal) -> Json:
    return _sums(used, used.completion + used.reasoning) | {
        "prompt_tokens_details": {"cached_tokens": used.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def plain(used: Used, cost: Decimal) -> Json:
    return _sums(used, used.completion + used.reasoning)


def gemini(used: Used, cost: Decimal) -> Json:
    """What was thought stands in the total only."""
    said = _sums(used, used.completion)
    return said | ({"prompt_tokens_details": {"cached_tokens": used.cached}} if used.cached else {})


def groq(used: Used, cost: Decimal) -> Json:
    said = {
        "queue_time": 0.01,
        "prompt_tokens": used.prompt,
        "prompt_time": 0.001,
        "completion_tokens": used.completion + used.reasoning,
        "completion_time": 0.01,
        "total_tokens": used.prompt + used.completion + used.reasoning,
        "total_time": 0.011,
    }
    return said | ({"prompt_tokens_details": {"cached_tokens": used.cached}} if used.cached else {})


def cerebras(used: Used, cost: Decimal) -> Json:
    return plain(used, cost) | {"prompt_tokens_details": {"cached_tokens": used.cached}}


def deepinfra(used: Used, cost: Decimal) -> Json:
    details = {"cached_tokens": used.cached} if used.cached else None
    said = plain(used, cost) | {"estimated_cost": float(cost)}
    return said | {"prompt_tokens_details": details}


def mistral(used: Used, cost: Decimal) -> Json:
    return plain(used, cost) | {"num_cached_tokens": used.cached}


def xai(used: Used, cost: Decimal) -> Json:
    """What was thought stands beside ``completion_tokens``."""
    return _sums(used, used.completion) | {
        "prompt_tokens_details": {
            "text_tokens": used.prompt,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": used.cached,
        },
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "num_sources_used": 0,
        "cost_in_usd_ticks": int(cost * 10**10),
    }


def openrouter(used: Used, cost: Decimal) -> Json:
    return plain(used, cost) | {
        "cost": float(cost),
        "is_byok": False,
        "prompt_tokens_details": {
            "cached_tokens": used.cached,
            "cache_write_tokens": 0,
            "audio_tokens": 0,
            "video_tokens": 0,
        },
        "cost_details": {
            "upstream_inference_cost": float(cost),
            "upstream_inference_prompt_cost": 0.0,
            "upstream_inference_completions_cost": 0.0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning,
            "image_tokens": 0,
            "audio_tokens": 0,
        },
    }
