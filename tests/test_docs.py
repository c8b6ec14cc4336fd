"""What documents say can be typed: commands, settings, codes, links; what was not run says so."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from keyproxy.commands import COMMANDS
from keyproxy.commands.frameworks import FRAMEWORKS
from keyproxy.demo.models import MODELS
from keyproxy.errors import CODES
from keyproxy.settings import ROWS
from tests.sdk.node import MODULES, install
from tests.sdk.outside import needed
from tests.sdk.served import TEXT, serving
from tests.test_commands import run

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = [path for path in (ROOT / "examples").rglob("README.md") if "vendor" not in path.parts]
CONFIGURED = [
    path
    for kind in ("*.yaml", "*.toml", "*.service", "*.cfg", "*.conf", "Caddyfile")
    for path in sorted((ROOT / "examples").rglob(kind))
]
OF_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*OF_ROOT, *sorted((ROOT / "docs").glob("*.md")), *sorted(EXAMPLES)]
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def code(page: Path) -> str:
    """All that a page sets as code: blocks, indented ones, and what stands in backticks."""
    text = page.read_text()
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    \S.*", text, re.MULTILINE)
    return "\n".join([*blocks, *indented, *re.findall(r"`([^`\n]+)`", text)])


# In a line of its own, or behind what runs it: uvx --from ., pipx run --spec ., .venv/bin/.
TYPED = re.compile(
    r"^ *(?:.*(?:/|--from \.|--spec \.|exec keyproxy) ?)?keyproxy ([a-z]+)\b(.*)", re.MULTILINE
)


@each_page
def test_every_command_has_these_options(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, tail in TYPED.findall(code(page)):
        assert command in COMMANDS, command
        assert run(command, "--help") == 0
        text = capsys.readouterr().out
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", re.split("[#|;&]", tail)[0]):
            assert re.search(rf"{option}\b", text), f"keyproxy {command} {option}"


def test_the_documents_name_every_command_that_people_type() -> None:
    named = {command for page in PAGES for command, _ in TYPED.findall(code(page))}
    assert named >= COMMANDS.keys() - {"ping"}


_PROGRAM = "keyproxy|make|docker|np[mx]|uvx|pipx?|curl|git|mkdir|python|install|fly|cp|\\S*/pip"
COMMENTED = re.compile(rf"^[ #]*(?:\w+=\S* )*(?:{_PROGRAM}) .* # ?\S.*", re.MULTILINE)


@pytest.mark.parametrize("path", [*PAGES, *CONFIGURED], ids=lambda path: path.name)
def test_what_is_pasted_has_no_comment(path: Path) -> None:
    """In zsh, which is what a Mac has, it is arguments: No rule to make target '#'."""
    text = code(path) if path.suffix == ".md" else path.read_text()
    assert COMMENTED.findall(text) == []


@pytest.mark.parametrize("path", [*PAGES, *CONFIGURED], ids=lambda path: path.name)
def test_nothing_of_an_index_is_installed_by_our_name(path: Path) -> None:
    """It is not ours there: docs/releasing.md, which alone says so."""
    if path.name != "releasing.md":
        assert not re.search(r"(?:install|--with|uvx) keyproxy\b(?!-)", path.read_text())


@each_page
def test_every_setting_is_one(page: Path) -> None:
    known = {name for row in ROWS.values() for name in row.variables}
    named = set(re.findall(r"\bKEYPROXY_[A-Z_]*[A-Z]\b(?!…|_)", page.read_text()))
    of_platforms = {name for name in named if re.search(r"_(SERVICE_HOST|PORT)$", name)}
    assert named - known - of_platforms == set()


@each_page
def test_every_refusal_has_its_status(page: Path) -> None:
    for status, name in re.findall(r"\b([45]\d\d) `([a-z]+_[a-z_]+)`", page.read_text()):
        assert CODES[name].status == int(status), name


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_lines_of_every_framework_are_those_that_init_prints() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text()
    for framework in FRAMEWORKS:
        address, client = framework.lines("http://localhost:8484/api/v1")
        place, _, line = address.partition(": ")
        assert f"| {framework.name} | `{place}`: `{line}` | `{client}` | " in text


def test_all_that_the_demo_can_do_is_told() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text()
    assert set(re.findall(r"`(demo/[\w-]+)`", text)) == {
        id for id in MODELS if id.startswith("demo/")
    }


@each_page
def test_what_no_test_can_run_says_so(page: Path) -> None:
    for before in re.findall(r"(.*)\n\n```(?:swift|kotlin|dart)\n", page.read_text()):
        assert "not run here" in before


@pytest.mark.timeout(300)  # the first of the tests with npm's packages installs them
@pytest.mark.parametrize("language", ["js", "python"])
async def test_the_readmes_snippets_run(language: str, tmp_path: Path) -> None:
    """As they stand, but for the port, and with a call behind them."""
    text = (ROOT / "README.md").read_text()
    [snippet] = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    async with serving() as served:
        snippet = snippet.replace("http://localhost:8484", served.url)
        assert served.url in snippet
        path = tmp_path / f"snippet.{'mjs' if language == 'js' else 'py'}"
        path.write_text(snippet + BEHIND[language])
        program = sys.executable
        if language == "js":
            install()
            (tmp_path / "node_modules").symlink_to(MODULES)
            program = needed("node")
        process = await asyncio.create_subprocess_exec(
            program, str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        told, trouble = await process.communicate()
    *streamed, last = told.decode().strip().splitlines()
    assert last == TEXT, trouble.decode()
    assert (len(streamed) > 3) == (language == "js")


_ASKED = f'{{"role": "user", "content": "{TEXT}"}}'
BEHIND = {
    "js": f"""
const messages = [{_ASKED}];
const answer = await openai.chat.completions.create({{ model: "demo/echo", messages }});
console.log(answer.choices[0].message.content);
""",
    "python": f"""
answer = client.chat.completions.create(model="demo/echo", messages=[{_ASKED}])
print(answer.choices[0].message.content)
""",
}


def test_the_readme_is_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
