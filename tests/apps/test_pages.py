"""The player page is handed out whole, and lets nothing in that is not of this server."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from worldsim_apps.pages import POLICY, TYPES, player_pages

PAGES = player_pages()
NAMES = sorted(file.name for file in (files("worldsim_apps") / "web").iterdir())


class Links(HTMLParser):
    """What a page names that a browser fetches, and what it may not have inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.named: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.named += [value for name in ("src", "href") if (value := told.get(name))]
        self.inline += [name for name in told if name == "style" or name.startswith("on")]
        self.ids += [told["id"]] if told.get("id") else []


def test_every_file_of_the_page_has_a_path_and_the_root_is_the_page():
    assert set(PAGES) == {"/", *(f"/{name}" for name in NAMES)}
    assert PAGES["/"] is PAGES["/index.html"]


@pytest.mark.parametrize("path", sorted(PAGES))
def test_an_answer_says_what_it_is_how_long_and_what_may_run(path):
    response, name = PAGES[path], path.removeprefix("/") or "index.html"
    body = (files("worldsim_apps") / "web" / name).read_bytes()
    assert (response.status_code, response.body) == (200, body)
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Content-Type"] == TYPES["." + name.rpartition(".")[2]]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == POLICY


def test_nothing_from_elsewhere_and_nothing_inline_is_allowed():
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in POLICY


def test_the_page_names_only_files_that_are_there_and_has_no_script_of_its_own():
    links = Links(PAGES["/"].body.decode())
    assert {f"/{name}" for name in links.named} <= set(PAGES)
    assert links.inline == []
    assert len(links.ids) == len(set(links.ids))


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_a_script_imports_only_files_that_are_there_and_looks_for_elements_that_are(name):
    text = PAGES[f"/{name}"].body.decode()
    assert {f"/{path}" for path in re.findall(r'from "\./([^"]+)"', text)} <= set(PAGES)
    asked = set(re.findall(r'\$\("([^"]+)"\)', text)) | set(re.findall(r'getElementById\("([^"]+)"\)', text))
    assert asked <= set(Links(PAGES["/"].body.decode()).ids)
