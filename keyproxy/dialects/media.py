"""Images and sound, asked for or written down. OpenRouter, November 2026."""

from __future__ import annotations

from keyproxy.dialects.dialect import Dialect, table

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
