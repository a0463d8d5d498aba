"""What the manual has beside docs/: pages from elsewhere in the repository, and files linked to.

Pages are written for the repository, with links relative to where they lie; here these are made
relative to where they are in the site. A link to nothing is left as it is, so that the build fails.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "config/REFERENCE.md": "configuration.md",
    "deploy/README.md": "deploy.md",
    "deploy/serverless/README.md": "functions/index.md",
    "deploy/serverless/azure/README.md": "functions/azure.md",
    "deploy/serverless/cloudrun/README.md": "functions/cloudrun.md",
    "deploy/serverless/google/README.md": "functions/google.md",
    "deploy/serverless/knative/README.md": "functions/knative.md",
    "deploy/serverless/lambda/README.md": "functions/lambda.md",
    "deploy/serverless/openfaas/README.md": "functions/openfaas.md",
    "tests/benchmarks/RESULTS.md": "benchmarks.md",
    "tests/jobs_study/RESULTS.md": "jobs_study.md",
    "tests/quality_study/RESULTS.md": "quality_study.md",
    "tests/results/RESULTS.md": "results.md",
}
"""Pages by their place in the repository, and in the site."""
_SOURCES = {site: source for source, site in PAGES.items()}
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FILES = "files"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, and every file of the repository that some page links to."""
    for source, site in PAGES.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / source)))
    for page in list(files.documentation_pages()):
        source = _source(page.src_uri)
        for target, _anchor in _LINK.findall((ROOT / source).read_text()):
            site = _in_site(_resolved(source, target))
            if site.startswith(_FILES) and files.get_file_from_path(site) is None:
                path = ROOT / site.removeprefix(f"{_FILES}/")
                files.append(File.generated(config, site, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they are in the site."""
    del config, files
    here, source = page.file.src_uri, _source(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        site = _in_site(_resolved(source, match[1]))
        return f"]({posixpath.relpath(site, posixpath.dirname(here) or '.')}{match[2] or ''})"

    return _LINK.sub(moved, markdown)


def _source(site: str) -> str:
    return _SOURCES.get(site, f"docs/{site}")


def _resolved(source: str, target: str) -> str:
    """The path in the repository that a link of the page `source` leads to; a folder's README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return f"{path}/README.md" if (ROOT / path).is_dir() else path


def _in_site(path: str) -> str:
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{_FILES}/{path}" if (ROOT / path).is_file() else path
