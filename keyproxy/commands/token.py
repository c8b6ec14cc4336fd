"""``keyproxy token``: make a client token; only its hash is ever stored."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keyproxy.commands import line
from keyproxy.settings.grammar import Unfit, mask
from keyproxy.settings.grammar.secrets import client_tokens


def main(arguments: Sequence[str]) -> int:
    parser = line.parser("token", "It is printed once, with the line to store. Exit code 0.")
    holder = "who will hold it, such as ios-app or ci; it is shown in the log; default: app"
    parser.option("name", "NAME", holder, nargs="?", default="app")
    only = "the token goes to stdout alone and the line to store to stderr, for scripts"
    parser.flag("--line-only", only)
    given = line.parse(parser, arguments)
    from keyproxy.clients import credentials  # --help need not load it

    token, stored = credentials.make_token(given.flags.name)
    pair = stored.pair
    try:
        client_tokens(pair)
        if mask(stored.name) != stored.name:
            raise Unfit("no secret")  # typed in the wrong place
    except Unfit:
        parser.error("a name has letters, digits and . _ @ -, 64 at most, and is no secret")
    if given.flags.line_only:
        print(token)
        print(pair, file=sys.stderr)
        return 0
    print(
        f"The token, shown this once; the client sends it as Authorization: Bearer …\n\n"
        f"  {token}\n\n"
        f"What keyproxy stores, beside other pairs by comma, or one a line in the file that\n"
        f"KEYPROXY_CLIENT_TOKENS_FILE names:\n\n"
        f"  KEYPROXY_CLIENT_AUTH=token\n"
        f"  KEYPROXY_CLIENT_TOKENS={pair}\n"
    )
    return 0
