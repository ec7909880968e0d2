"""The book in a real JupyterLab, as `medbook lab` starts it:
it opens, runs, and shows its figures."""

import pytest

from tests.pictures import lab, open_notebook

SIZES = "[...document.querySelectorAll('.jp-RenderedImage img')].map(image => image.naturalWidth)"
RAN = r"""[...document.querySelectorAll('.jp-InputPrompt')]
    .some(prompt => /\[\d+\]/.test(prompt.textContent))"""
IDLE = "[data-status='idle'], .jp-Notebook-ExecutionIndicator[data-status='idle']"
FORMULAS = ".jp-RenderedMarkdown mjx-container, .jp-RenderedMarkdown .MathJax"


@pytest.mark.timeout(300)
def test_a_chapter_opens_and_a_cell_runs(browser):
    with lab() as address:
        page = open_notebook(browser, address, "3_evaluation/03_intervals.ipynb")
        sizes = page.evaluate(SIZES)
        assert sizes and min(sizes) > 100
        assert page.locator(FORMULAS).count() > 0
        page.wait_for_selector(IDLE, timeout=120_000)
        page.locator(".jp-Cell.jp-CodeCell .jp-InputArea-editor").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(RAN, timeout=120_000)
        page.close()
