"""What MkDocs needs to make one site of the documents (hooks of ``docs/site/mkdocs.yml``).

The documents are written to be read in the repository: they link to each other, to the READMEs of folders and to files
of code. Here the READMEs become pages of the site, links to them lead there, and links to other files of the tree,
which a site does not have, become their text. A link to nothing ends the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FOLDERS = ("dataplane", "controlplane", "shared", "proto", "deploy", "tests")
_DOCUMENTS = "docs/"

# Pages that are no files of docs/: path in the site → path in the repository.
READMES = {"index.md": "README.md"} | {f"folders/{name}.md": f"{name}/README.md" for name in FOLDERS}
_PAGES = {source: page for page, source in READMES.items()}

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_SOURCE = re.compile(r'(?P<before><(?:img|source)\b[^>]*?\bsrc(?:set)?=")(?P<target>[^"]+)')
_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_ELSEWHERE = re.compile(r"[a-z]+:|#|//")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the READMEs."""
    for page, source in READMES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the links of a page right. Raises ``PluginError`` for a link to nothing."""
    del config, files
    return with_links_of_site(markdown, page.file.src_uri)


def with_links_of_site(markdown: str, page: str) -> str:
    """The text of a page (its path in the site) with links as the site needs them; code is left alone."""
    parts: list[str] = []
    at = 0
    for fence in _FENCE.finditer(markdown):
        parts += (_rewritten(markdown[at : fence.start()], page), fence[0])
        at = fence.end()
    return "".join((*parts, _rewritten(markdown[at:], page)))


def _rewritten(text: str, page: str) -> str:
    def link(found: re.Match[str]) -> str:
        target = _target(found["target"], page)
        if target is None:
            return found["text"]
        return f"{found['image']}[{found['text']}]({target})"

    def source(found: re.Match[str]) -> str:
        return found["before"] + (_target(found["target"], page) or found["target"])

    return _SOURCE.sub(source, _LINK.sub(link, text))


def _target(target: str, page: str) -> str | None:
    """Where a link leads in the site; None for a file of the repository that the site does not have."""
    if _ELSEWHERE.match(target):
        return target
    path, mark, anchor = target.partition("#")
    source = READMES.get(page, _DOCUMENTS + page)
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if meant.startswith("..") or not (ROOT / meant).exists():
        raise PluginError(f"{source}: nothing is at {target}")
    readme = meant if meant.endswith(".md") else f"{meant}/README.md"
    if meant.startswith(_DOCUMENTS) and (ROOT / meant).is_file():
        found = meant.removeprefix(_DOCUMENTS)
    elif readme in _PAGES:
        found = _PAGES[readme]
    else:
        return None
    return posixpath.relpath(found, posixpath.dirname(page) or ".") + mark + anchor
