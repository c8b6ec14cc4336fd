"""What is asked of an operator who has not said what must be said."""

from __future__ import annotations

from collections.abc import Mapping

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar.keys import misnamed
from keyproxy.settings.grammar.secrets import MAKING
from keyproxy.settings.setting import Setting, unsaid

# For a page that anybody may open. The secret is no text of ours: whoever pastes it makes it.
_SAFEST = {
    "KEYPROXY_CLIENT_AUTH": "session",
    "KEYPROXY_SESSION_SECRET": f"$({MAKING})",
    "KEYPROXY_TOTAL_BUDGET": "5/day",
}


def key(setting: Setting, environ: Mapping[str, str]) -> SettingsFault:
    """The question for the key, which may stand under another name."""
    near = misnamed(environ)
    if near is None:
        return unsaid(setting, environ)
    return SettingsFault(
        setting.variable,
        found=f"not set, but {near} is",
        expected=f"the same under this name: keyproxy does not read {near}",
        paste=setting.paste,
    )


def who_may_call(setting: Setting, environ: Mapping[str, str]) -> SettingsFault:
    """The question with its safest answer, and with what is asked once that is given."""
    lines = [
        f"{variable}={answer}"
        for variable, answer in _SAFEST.items()
        if not any(environ.get(v, "").strip() for v in (variable, f"{variable}_FILE"))
    ]
    is_made = any("$(" in text for text in lines)
    how = "; a shell runs what stands in $(…), a file wants what that prints" if is_made else ""
    return SettingsFault(
        setting.variable,
        expected="how a caller proves who it is: session (a public page), jwt (a log-in of"
        " yours: docs/jwt.md), token (known devices: keyproxy token makes one) or none (whoever"
        f" reaches it may call; say KEYPROXY_TOTAL_BUDGET too){how}",
        paste="\n".join(lines),
    )
