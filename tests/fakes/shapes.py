"""Errors as nine vendors word them: five shapes, and what each says to a body that it refuses."""

from __future__ import annotations

from typing import Any

from tests.fakes.vendor import Complaint, Json, Trouble

ORGANISATION = "org-EXAMPLEorganisation0001"
"""Told in the texts of some errors; nobody else should read it."""
USER = "user_2EXAMPLEaccountid0000000000"


# 1. An object under ``error``.


def openai(trouble: Trouble) -> Json:
    return {
        "error": {
            "message": trouble.message,
            "type": trouble.type,
            "param": trouble.param,
            "code": trouble.code,
        }
    }


def groq(trouble: Trouble) -> Json:
    error = {"message": trouble.message, "type": trouble.type, "code": trouble.code}
    return {"error": {name: value for name, value in error.items() if value}}


def anthropic(trouble: Trouble) -> Json:
    error = {"type": trouble.type, "message": trouble.message}
    return {"type": "error", "error": error, "request_id": "req_example"}


def openrouter(trouble: Trouble) -> Json:
    metadata: Json = {"error_type": trouble.code, "provider_name": "Example"}
    for more in trouble.details:
        metadata |= more
    error = {"message": trouble.message, "code": trouble.status, "metadata": metadata}
    return {"error": error, "user_id": USER}


# 2. A text under ``error``.


def xai(trouble: Trouble) -> Json:
    return {"code": trouble.code, "error": trouble.message}


# 3. A bare object.


def bare(trouble: Trouble) -> Json:
    return {
        "message": trouble.message,
        "type": trouble.type,
        "param": trouble.param,
        "code": trouble.code,
    }


def mistral(trouble: Trouble) -> Json:
    if trouble.status == 422:
        return detail(trouble)
    if trouble.status == 401:
        return {"detail": "Unauthorized"}
    return {"object": "error", **bare(trouble), "raw_status_code": trouble.status}


# 4. A list under ``detail``.


def detail(trouble: Trouble) -> Json:
    where = ["body", *(trouble.param or "").split(".")]
    return {"detail": [{"type": trouble.code, "loc": where, "msg": trouble.message}]}


def deepinfra(trouble: Trouble) -> Json:
    if trouble.status == 422:
        return detail(trouble)
    return {"error": {"message": trouble.message, "type": trouble.type, "code": trouble.code}}


# 5. An array.


def gemini(trouble: Trouble) -> list[Json]:
    error: dict[str, Any] = {
        "code": trouble.status,
        "message": trouble.message,
        "status": trouble.code,
    }
    if trouble.details:
        error["details"] = list(trouble.details)
    return [{"error": error}]


# What is said to a body.


def openai_says(complaint: Complaint) -> Trouble:
    code, text = {
        "unknown": ("unknown_parameter", f"Unknown parameter: '{complaint.dotted}'."),
        "unsupported": (
            "unsupported_parameter",
            f"Unsupported parameter: '{complaint.dotted}' is not supported with this model. "
            f"{complaint.hint}",
        ),
        "value": ("invalid_value", f"Invalid value for '{complaint.dotted}': {complaint.hint}"),
    }[complaint.why]
    return Trouble(400, code, text, "caller", param=complaint.dotted)


def anthropic_says(complaint: Complaint) -> Trouble:
    text = "Extra inputs are not permitted" if complaint.why == "unknown" else complaint.hint
    if complaint.name == "anthropic-beta":
        text = f"Unexpected value(s) `{complaint.hint}` for the `anthropic-beta` header."
    else:
        text = f"{complaint.dotted}: {text}"
    return Trouble(400, "invalid_request_error", text, "caller", param=complaint.dotted)


def gemini_says(complaint: Complaint) -> Trouble:
    text = f"Invalid value at '{complaint.dotted}': {complaint.hint}"
    if complaint.why != "value":
        text = (
            f'Invalid JSON payload received. Unknown name "{complaint.name}"'
            f"{_at(complaint)}: Cannot find field."
        )
    violation = {"fieldViolations": [{"description": text}]}
    details = ({"@type": "type.googleapis.com/google.rpc.BadRequest", **violation},)
    return Trouble(400, "INVALID_ARGUMENT", text, "caller", details=details)


def _at(complaint: Complaint) -> str:
    outer = ".".join(map(str, complaint.path[:-1]))
    return f" at '{outer}'" if outer else ""


def groq_says(complaint: Complaint) -> Trouble:
    text = f"'{complaint.dotted}' : {complaint.hint}"
    if complaint.why != "value":
        text = f"property '{complaint.name}' is unsupported"
        if len(complaint.path) > 1:
            text = f"'{'.'.join(map(str, complaint.path[:2]))}' : {text}"
    return Trouble(400, "", text, "caller")


def cerebras_says(complaint: Complaint) -> Trouble:
    place = complaint.dotted if len(complaint.path) > 1 else f"body.{complaint.dotted}"
    hint = complaint.hint or f"property '{place}' is unsupported"
    text = f"{place}: {hint}"
    return Trouble(400, "wrong_api_format", text, "caller", param="validation_error")


def mistral_says(complaint: Complaint) -> Trouble:
    code, text = "extra_forbidden", "Extra inputs are not permitted"
    if complaint.why == "value":
        code, text = "value_error", f"Value error, {complaint.hint}"
    return Trouble(422, code, text, "caller", param=complaint.dotted)


def deepinfra_says(complaint: Complaint) -> Trouble:
    return Trouble(422, "value_error", complaint.hint, "caller", param=complaint.dotted)


def xai_says(complaint: Complaint) -> Trouble:
    words = complaint.name.split("_")
    name = words[0] + "".join(map(str.capitalize, words[1:]))
    text = complaint.hint or f"Argument not supported on this model: {name}"
    return Trouble(400, "Client specified an invalid argument", text, "caller")


def openrouter_says(complaint: Complaint) -> Trouble:
    return Trouble(400, "invalid_request", f"{complaint.dotted}: {complaint.hint}", "caller")
