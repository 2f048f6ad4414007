"""Sphinx builds the site from the pages in this folder; see the target ``docs`` of the Makefile."""

import atexit
import os
import shutil
import tempfile

from airflow_provider_hkex_rap import __version__

# Airflow, which autodoc imports, writes its configuration into its home.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"])

project = "airflow-provider-hkex-rap"
author = "the contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "attrs_inline"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Docstrings write names in single backticks.
default_role = "literal"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_title = f"{project} {version}"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
