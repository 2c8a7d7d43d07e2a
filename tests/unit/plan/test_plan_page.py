# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML page: whole, alone, escaped, and the same every time."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _plan_page

CSS = (Path(__file__).resolve().parents[3] / "playbooks" / "templates" / "plan.css").read_text(encoding="utf-8")
HOSTILE = "\"'><script>alert(1)</script><b onclick=x>&{{ 1 + 1 }}{% if %}"
# Words that the page looks at to decide something; all other text of a plan is only shown.
WORDS = {"present", "absent", "on-demand", "spot", "FITS", "TIGHT", "NO", "UNKNOWN", "warning", "weights", "activation", "cuda_graphs"}


class Structure(HTMLParser):
    """The elements with the names of their attributes, in order, and the text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.attributes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(name for name, _value in attrs)))
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def poisoned(value):
    """The same plan with every shown text hostile."""
    if isinstance(value, dict):
        return {key: poisoned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return value + HOSTILE if isinstance(value, str) and value not in WORDS else value


@pytest.fixture(scope="module")
def page(planned, render):
    return render(*planned)


def test_all_text_is_escaped(planned, render, page):
    bad = render(*poisoned(list(planned)))
    assert [e for e in Structure(bad).elements if e[0] in ("script", "b") and e[1]] == []
    assert Structure(bad).elements == Structure(page).elements
    assert "".join(Structure(bad).text).count("<script>alert(1)</script>") > 50
    assert "{{ 1 + 1 }}" in bad


def test_it_stands_alone(page):
    elements = {tag for tag, _attributes in Structure(page).elements}
    assert elements & {"script", "link", "img", "iframe", "object", "embed", "svg"} == set()
    assert re.search(r"url\(|@import", page) is None
    assert [value for name, value in Structure(page).attributes if name in ("src", "href") and not value.startswith("#")] == []
    assert "prefers-color-scheme: dark" in page
    assert '<meta name="viewport" content="width=device-width' in page


def test_the_same_plan_gives_the_same_bytes(planned, render, page):
    assert render(*planned) == page


def test_links_lead_to_sections(page):
    attributes = Structure(page).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert sorted(f"#{value}" for value in ids) == sorted(value for name, value in attributes if name == "href")
    assert len(set(ids)) == len(ids) == 3


def test_every_class_has_a_rule(page):
    used = {word for name, value in Structure(page).attributes if name == "class" for word in value.split()}
    assert used
    assert used - set(re.findall(r"\.([a-zA-Z][\w-]*)", CSS)) == set()


def test_every_term_alternative_rejection_and_figure_is_shown(planned, page):
    text = " ".join(" ".join(Structure(page).text).split())
    for model in planned[0]:
        if not model.get("fit"):
            assert model["name"] in text
            continue
        for term in model["fit"]["terms"]:
            assert f"{term['gib']:.2f} {term['why']}" in text
        for candidate in [model["choice"], *model["alternatives"]]:
            assert f"{candidate['instance_type']} tp{candidate['tensor_parallel_size']}" in text
            assert candidate["why"] in text
        for entry in model["rejected"]:
            assert entry["reason"] in text
            assert ", ".join(entry["instance_types"]) in text
        for lines in model["explain"].values():
            assert all(line in text for line in lines)
        assert f"{model['fit']['kv_tokens']:,} tokens in {model['fit']['kv_blocks']:,} blocks" in text


def test_a_model_that_does_not_fit_shows_what_would(planned, render):
    model = planned[0][0]
    short = -1.25
    fit = model["fit"] | {"verdict": "NO", "kv_gib": short, "margin_gib": -3.25, "kv_tokens": 0, "kv_blocks": 0, "concurrency": 0.0}
    fit |= {"terms": [model["fit"]["terms"][0] | {"gib": model["fit"]["weights_gib"] + model["fit"]["kv_gib"] - short}, *model["fit"]["terms"][1:]]}
    fit |= {"fix": {"change": "quantisation", "value": "fp8", "text": "use an FP8 checkpoint of the model"}}
    page = render([model | {"fit": fit}])
    assert 'class="part kv"' not in page
    assert "To make it fit: use an FP8 checkpoint of the model." in page
    assert "--cell" not in re.sub(r"(?s)<style>.*</style>", "", page)


def test_an_empty_plan_is_a_page_too(render):
    page = render([])
    assert "No model is to be served." in page
    assert "<table" not in page


def test_every_term_of_the_arithmetic_has_a_name():
    folder = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"
    made = {name for path in folder.glob("_fit*.py") for name in re.findall(r'Term\("(\w+)"', path.read_text(encoding="utf-8"))}
    # What lies outside of the budget is no term of the sum.
    assert made - {"outside"} == set(_plan_page.TERMS)
