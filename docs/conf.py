"""Sphinx configuration: MyST Markdown, numpydoc-style docstrings, examples and notebooks that run in every build."""

import os
import shutil
import sys
from pathlib import Path

import ragscale

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE / "_ext"))
(_HERE / "notebooks").mkdir(exist_ok=True)
for notebook in (_HERE.parent / "examples").glob("*.ipynb"):
    shutil.copyfile(notebook, _HERE / "notebooks" / notebook.name)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

project = "ragscale"
copyright = "the ragscale maintainers"
version = release = ragscale.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "links",
    "formulas",
]
nitpicky = True
default_role = "py:obj"
html_math_renderer = "katex"
maximum_signature_line_length = 88
exclude_patterns = ["_build", "jupyter_execute", *(f"gallery/{end}" for end in ("*.ipynb", "*.py", "*.zip", "*.json"))]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
# config.cache: pickled configuration values hold gallery classes; nothing is lost by reading them anew.
# ref.python: plain words in the type of a parameter ("law, parameters") are taken for references with several targets.
suppress_warnings = ["config.cache", "ref.python"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"(__init__|demo)\.py$",
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 1,
    "matplotlib_animations": False,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
    "capture_repr": ("_repr_html_", "__repr__"),
    "within_subsection_order": "FileNameSortKey",
}

html_theme = "furo"
html_title = "ragscale"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
