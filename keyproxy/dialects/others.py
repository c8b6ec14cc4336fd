"""Calls without a conversation: texts, images and sound. OpenRouter, November 2026."""

from __future__ import annotations

from keyproxy.dialects.dialect import Dialect, table

COMPLETIONS = Dialect(
    name="completions",
    path="/completions",
    fields=table(
        free=(
            "temperature top_p top_k top_a min_p frequency_penalty presence_penalty"
            " repetition_penalty logit_bias logprobs top_logprobs seed stop stream_options"
            " max_tokens suffix echo"
        ),
        prompts="prompt",
        one="n best_of",
    ),
    priced_by="answer",
    texts="prompt",
    lengths=("max_tokens",),
)
EMBEDDINGS = Dialect(
    name="embeddings",
    path="/embeddings",
    fields=table(free="encoding_format dimensions input_type", conversation="input"),
    priced_by="input",
    texts="input",
)
RERANK = Dialect(
    name="rerank",
    path="/rerank",
    fields=table(free="query documents top_n return_documents"),
    priced_by="pairs",
)
IMAGES = Dialect(
    name="images",
    path="/images",
    fields=table(
        free=(
            "prompt size quality background output_format response_format aspect_ratio"
            " resolution seed output_compression safety_identifier style"
        ),
        conversation="input_images input_references",
        one="n",
    ),
    answers_with_media=True,
)
SPEECH = Dialect(
    name="speech",
    path="/audio/speech",
    fields=table(
        free="voice instructions response_format speed stream_format",
        conversation="input input_references",
    ),
    answers_with_media=True,
)
TRANSCRIPTIONS = Dialect(
    name="transcriptions",
    path="/audio/transcriptions",
    fields=table(
        free="language prompt response_format temperature timestamp_granularities",
        conversation="input_audio",
    ),
)
