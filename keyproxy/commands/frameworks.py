"""Which framework a folder's pages are made with, and how such a page finds keyproxy.

Known by the framework's own files, or by its package in ``package.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

from keyproxy.dataclass import dataclass
from keyproxy.settings.sources import read_file

_SDK = "new OpenAI({{ baseURL: {url}, apiKey: 'none', dangerouslyAllowBrowser: true{more} }})"


@dataclass(frozen=True, slots=True)
class Framework:
    """``files``: patterns, one of which is in such a folder; ``package``: what npm calls it;
    "" where only files tell. ``place`` and ``line``: where the address of keyproxy is written, and
    how; ``url``: the expression that a page reads it by."""

    name: str
    files: tuple[str, ...]
    package: str
    place: str
    line: str
    url: str
    more: str = ""

    @property
    def live(self) -> str | None:
        """The file that a build reads instead of ``place``; None where that is read, too. An SDK
        without an address calls its vendor."""
        return ".env.production" if self.place == ".env.development" else None

    def is_in(self, directory: Path, packages: frozenset[str]) -> bool:
        """Whether ``directory``, whose pages use ``packages``, is a project of this framework."""
        return self.package in packages or any(
            True for pattern in self.files for _ in directory.glob(pattern)
        )

    def lines(self, base: str) -> tuple[str, str]:
        """The two lines of a page that calls ``base``: its address, and the client."""
        return (
            f"{self.place}: {self.line.format(base=base)}",
            _SDK.format(url=self.url, more=self.more),
        )


# The more exact first: SvelteKit and Angular build with Vite, and Expo's pages are React's.
FRAMEWORKS = (
    Framework("Next.js", ("next.config.*",), "next", ".env.development",
        "NEXT_PUBLIC_LLM_URL={base}", "process.env.NEXT_PUBLIC_LLM_URL"),
    Framework("Nuxt", ("nuxt.config.*",), "nuxt", "nuxt.config.ts",
        "runtimeConfig: {{ public: {{ llmUrl: '{base}' }} }}",
        "useRuntimeConfig().public.llmUrl"),
    Framework("SvelteKit", (), "@sveltejs/kit", ".env.development",
        "PUBLIC_LLM_URL={base}", "env.PUBLIC_LLM_URL /* $env/dynamic/public */"),
    Framework("Expo", ("eas.json",), "expo", ".env.development",
        "EXPO_PUBLIC_LLM_URL={base}", "process.env.EXPO_PUBLIC_LLM_URL",
        ", fetch /* of expo/fetch: it streams */"),
    Framework("Angular", ("angular.json",), "@angular/core", "src/environments/environment.ts",
        "export const environment = {{ llmUrl: '{base}' }};", "environment.llmUrl"),
    Framework("Vite", ("vite.config.*",), "vite", ".env.development",
        "VITE_LLM_URL={base}", "import.meta.env.VITE_LLM_URL"),
)  # fmt: skip


def framework_in(directory: Path) -> Framework | None:
    """The framework of a folder's pages; None where its files show none."""
    packages = _packages(directory / "package.json")
    return next((each for each in FRAMEWORKS if each.is_in(directory, packages)), None)


def _packages(path: Path) -> frozenset[str]:
    try:
        document = json.loads(read_file(path).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return frozenset()
    kinds = ("dependencies", "devDependencies")
    tables = [document.get(kind) for kind in kinds] if isinstance(document, dict) else []
    return frozenset(name for table in tables if isinstance(table, dict) for name in table)
