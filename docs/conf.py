"""The documentation site: `make docs`."""

import sys
from pathlib import Path

import imagen_fast

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "imagen_fast"
author = "the imagen_fast contributors"
release = imagen_fast.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_line", "mathml"]

html_theme = "furo"
html_title = f"imagen_fast {release}"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
# `--epochs` is two hyphens.
smartquotes = False
html_static_path = ["static"]
html_css_files = ["site.css"]

# Pages are read on GitHub too, which knows this block and nothing of Sphinx's directives.
myst_fence_as_directive = ["math"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Docstrings put names between single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
# Only the integrations need them, and those need no more than a class to derive from.
autodoc_mock_imports = ["huggingface_hub", "lightning", "transformers"]


def without_a_docstring(app, what, name, member, skip, options):
    """Leave out the fields of a named tuple that only Python itself says something about."""
    return skip or (getattr(member, "__doc__", None) or "").startswith("Alias for field number")


def readable(app, what, name, of, options, signature, returns):
    """What a dataclass writes for a default that it makes is no Python, and Sphinx then finds no types."""
    return signature and signature.replace("<factory>", "..."), returns


def setup(app):
    app.connect("autodoc-process-signature", readable)
    app.connect("autodoc-skip-member", without_a_docstring)
