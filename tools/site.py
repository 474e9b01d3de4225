"""What mkdocs needs beyond docs/: the pages that live elsewhere in the repository.

A link such as `../configs/README.md` must work where the repository is browsed and on the site. So pages from outside
docs/ keep their paths on the site, and links are rewritten from the one layout to the other. A link to a file that is
in the repository but not on the site keeps its words and loses its target; a link to nothing fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "DESIGN.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/calibration.md",
    "configs/README.md",
)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's layout."""
    return rewrite_links(markdown, page.file.src_uri)


def rewrite_links(markdown: str, site_path: str) -> str:
    """Links of a page, from the repository's layout to the site's.

    Args:
        markdown: text of the page.
        site_path: where the page lies on the site, such as "training.md" or "configs/README.md".
    """
    here = site_path if site_path in OUTSIDE else f"docs/{site_path}"

    def rewritten(match: re.Match[str]) -> str:
        words, link, anchor = match.group(1), match.group(2), match.group(3) or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
        if target in OUTSIDE:
            on_site = target
        elif target.startswith("docs/"):
            on_site = target.removeprefix("docs/")
        else:
            return words if (ROOT / target).exists() else match.group(0)
        return f"[{words}]({posixpath.relpath(on_site, posixpath.dirname(site_path) or '.')}{anchor})"

    return _LINK.sub(rewritten, markdown)
