"""The book in a real JupyterLab and a real browser: it opens, runs, and shows its figures."""
import pytest

from tests.pictures import chromium, lab, open_notebook


@pytest.mark.timeout(300)
def test_a_chapter_opens_and_a_cell_runs():
    with chromium() as browser, lab() as address:
        page = open_notebook(browser, address, "3_evaluation/03_intervals.ipynb")
        sizes = page.evaluate("[...document.querySelectorAll('.jp-RenderedImage img')].map(i => i.naturalWidth)")
        assert sizes and min(sizes) > 100
        assert page.locator(".jp-RenderedMarkdown mjx-container, .jp-RenderedMarkdown .MathJax").count() > 0
        page.wait_for_selector("[data-status='idle'], .jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=120_000)
        page.locator(".jp-Cell.jp-CodeCell .jp-InputArea-editor").first.click()
        page.keyboard.press("Shift+Enter")
        ran = "[...document.querySelectorAll('.jp-InputPrompt')].some(prompt => /\\[\\d+\\]/.test(prompt.textContent))"
        page.wait_for_function(ran, timeout=120_000)
