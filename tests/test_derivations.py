"""Chapters and code cite each other, every equation is checked, and a wrong sign fails with both values.

The blocks themselves are run by derivations/conftest.py.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "derivations").glob("[0-9][0-9]-*.md"))
MODULES = sorted((ROOT / "lintransformer").rglob("*.py"))
SECTIONS = ["**Statement.**", "## Derivation", "## Checked", "## Exercises", "## The code it becomes"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE_MATH = re.compile(r"\$`(.*?)`\$", re.S)
LINK = re.compile(r"\[`([^`]+)`\]\(\.\./([^)]+)\)((?:,? `\w+`)*)")
CITED_CHAPTER = re.compile(r"derivations/([\w-]+\.md)")
# "eq. 5.4", "eq. 5.4-5.6", "eq. 7.2 and 7.5", "eq. 11.1, 11.2"; eq. 7 of the paper has no point
CITED_EQUATIONS = re.compile(r"eq\.\s+(\d+\.\d+(?:(?:\s*-\s*|,\s*|\s+and\s+|\s+to\s+)\d+\.\d+)*)")

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.name)


def number(chapter):
    return int(chapter.name[:2])


def fences(chapter, language):
    return [body for kind, body in FENCE.findall(chapter.read_text()) if kind == language]


def tags(chapter):
    return re.findall(r"\\tag\{([^}]*)\}", "".join(fences(chapter, "math")))


def prose(chapter):
    return FENCE.sub("", chapter.read_text())


def expand(text):
    """"5.4-5.6" to 5.4, 5.5, 5.6; lists likewise."""
    for part in re.split(r",\s*|\s+and\s+", text):
        ends = [tuple(map(int, end.split("."))) for end in re.split(r"\s*-\s*|\s+to\s+", part)]
        assert ends[0][0] == ends[-1][0], f"a range over two chapters: {text}"
        yield from (f"{ends[0][0]}.{i}" for i in range(ends[0][1], ends[-1][1] + 1))


ALL_TAGS = {tag for chapter in CHAPTERS for tag in tags(chapter)}


def test_the_contents_list_every_chapter():
    contents = (ROOT / "derivations" / "README.md").read_text()
    assert [number(chapter) for chapter in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))
    assert re.findall(r"\]\((\d\d-[\w-]+\.md)\)", contents) == [chapter.name for chapter in CHAPTERS]


@each_chapter
def test_a_chapter_has_all_its_parts_in_order(chapter):
    text = chapter.read_text()
    places = [text.find(section) for section in SECTIONS]
    assert -1 not in places and places == sorted(places)
    assert len(text.splitlines()) < 325


@each_chapter
def test_equations_are_numbered_in_order(chapter):
    assert tags(chapter) == [f"{number(chapter)}.{i + 1}" for i in range(len(tags(chapter)))] != []


@each_chapter
def test_every_equation_is_checked_by_a_block(chapter):
    code = "".join(fences(chapter, "python"))
    checked = set(re.findall(r"\b\d+\.\d+\b", " ".join(re.findall(r"\(([\d., and]+)\)", code))))
    assert not set(tags(chapter)) - checked


@each_chapter
def test_every_reference_to_an_equation_resolves(chapter):
    # our equation numbers are (N.M); numbers in code blocks appear in comments only
    cited = set(re.findall(r"\((\d+\.\d+)\)", INLINE_MATH.sub("", prose(chapter))))
    assert not cited - ALL_TAGS


@each_chapter
def test_formulas_use_what_github_renders(chapter):
    """Display formulas in fences, inline ones as $`...`$: plain $..$ with several subscripts breaks there."""
    assert "$" not in INLINE_MATH.sub("", prose(chapter))
    assert not re.search(r"\w\$`|`\$[\w-]", prose(chapter))                   # math ends at a word boundary
    formulas = fences(chapter, "math") + INLINE_MATH.findall(prose(chapter))
    for formula in formulas:
        bare = formula.replace(r"\{", "").replace(r"\}", "")
        assert bare.count("{") == bare.count("}"), formula
        assert formula.count(r"\begin{") == formula.count(r"\end{"), formula
        assert formula.count(r"\left") == formula.count(r"\right"), formula
        assert r"\operatorname" not in formula and "\n\n" not in formula, formula
    for row in re.findall(r"^\|.*\|$", chapter.read_text(), re.M):           # a bar would end the cell
        assert not any("|" in formula for formula in INLINE_MATH.findall(row)), row


@each_chapter
def test_links_to_code_resolve(chapter):
    links = LINK.findall(chapter.read_text())
    assert links
    for shown, path, names in links:
        assert shown == path and (ROOT / path).is_file(), path
        defined = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text()))
                   if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, (path, names)


def cited_chapters(module):
    """Numbers of the chapters that a module cites, by file name or by the number of an equation."""
    text = module.read_text()
    equations = [tag for cited in CITED_EQUATIONS.findall(text) for tag in expand(cited)]
    by_name = {int(name[:2]) for name in CITED_CHAPTER.findall(text)}
    return by_name | {int(tag.split(".")[0]) for tag in equations}


@each_chapter
def test_every_chapter_is_cited_by_code_that_it_links_to(chapter):
    linked = {path for _, path, _ in LINK.findall(chapter.read_text())}
    assert any(number(chapter) in cited_chapters(ROOT / path) for path in linked)


@each_chapter
def test_every_chapter_links_back_to_the_code_that_cites_it(chapter):
    linked = {path for _, path, _ in LINK.findall(chapter.read_text())}
    core = [module for module in MODULES
            if "paper" not in module.parts and not module.name.startswith(("cli", "battery"))]
    citing = {str(module.relative_to(ROOT)) for module in core if number(chapter) in cited_chapters(module)}
    assert not citing - linked


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_citations_in_the_code_resolve(module):
    text = module.read_text()
    names = {chapter.name for chapter in CHAPTERS}
    assert not set(CITED_CHAPTER.findall(text)) - names
    equations = {tag for cited in CITED_EQUATIONS.findall(text) for tag in expand(cited)}
    assert not equations - ALL_TAGS
    for name, cited in re.findall(r"derivations/([\w-]+\.md),\s+" + CITED_EQUATIONS.pattern, text):
        assert all(tag.startswith(f"{int(name[:2])}.") for tag in expand(cited)), (name, cited)


def run_pytest(*paths):
    folder = paths[0].parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, *paths]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=folder)


def test_a_wrong_sign_in_a_chapter_fails_with_file_line_and_both_values(tmp_path):
    shutil.copy(ROOT / "derivations" / "conftest.py", tmp_path)
    text = (ROOT / "derivations" / "04-backward-token.md").read_text()
    right = "Zbar += P.T @ Vbar @ M + Q @ Z @ t(Rbar) + Q.T @ Z @ Rbar"
    assert text.count(right) == 1
    wrong = tmp_path / "04-backward-token.md"
    wrong.write_text(text.replace(right, right.replace("+ Q.T", "- Q.T")))
    result = run_pytest(wrong)
    lines = text.splitlines()
    failing = next(i for i, line in enumerate(lines, 1) if "shipped.backward(cache, pbar), np" in line)
    assert result.returncode == 1
    assert f"{wrong.name}:{failing}" in result.stdout
    assert re.search(r"relative error [\d.]+ is above 1e-12", result.stdout)
    assert re.search(r"left side:  \[.*\d", result.stdout) and re.search(r"right side: \[.*\d", result.stdout)


def test_a_chapter_as_it_stands_passes_by_the_same_command(tmp_path):
    shutil.copy(ROOT / "derivations" / "conftest.py", tmp_path)
    shutil.copy(ROOT / "derivations" / "04-backward-token.md", tmp_path)
    result = run_pytest(tmp_path / "04-backward-token.md")
    assert result.returncode == 0 and " passed" in result.stdout, result.stdout
