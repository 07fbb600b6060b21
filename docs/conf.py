"""The site that `make docs` builds of README and docs/: the Markdown as it is, in the order of the README's table."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

import vqtool

project = "vqtool"
release = version = vqtool.__version__
author = copyright = "the vqtool authors, Apache-2.0"

# The source is the whole tree, so that links are the ones that GitHub follows; what is no page is put beside them.
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/*.rst",
    "sample_data/README.md",
    "examples/*/README.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
default_role = "code"
highlight_language = "text"  # of blocks that name none: what a command printed
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"vqtool {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}

MORE = ["docs/api", "CHANGELOG"]  # pages that the README's table leaves out


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the pages of the README's table the contents of the site."""
    if page == root_doc:
        _, _, table = source[0].partition("## Where to read on\n")
        listed = re.findall(r"^\| \[[^]]+\]\(([^)#]+?)(?:\.md)?\)", table.partition("\n## ")[0], re.MULTILINE)
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", *listed, *MORE, "```\n"])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_contents)


assert Path(vqtool.__file__).parents[1] == Path(__file__).parents[1], "another vqtool is installed than is described"
