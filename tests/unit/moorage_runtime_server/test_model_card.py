"""What is read from a model's folder, and templates that are not to be trusted."""

import json

import pytest

from moorage_runtime.server.chat_template import ChatTemplate, TemplateError
from moorage_runtime.server.errors import InvalidRequestError
from moorage_runtime.server.model_card import ModelCardError, load_card

HI = [{"role": "user", "content": "<hi>"}]


@pytest.fixture
def folder(tmp_path, tokenizer):
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    def write(**files):
        for name, value in files.items():
            (tmp_path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path

    return write


def test_a_bare_tokenizer_is_enough(folder):
    card = load_card(folder())
    assert card.template is None
    assert card.eos_token_ids == set()
    assert (card.defaults.temperature, card.defaults.top_k) == (1.0, 0)


def test_generation_defaults(folder):
    generation = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [1, 2], "max_length": 9}
    card = load_card(folder(generation_config=generation, config={"eos_token_id": 3}))
    assert (card.defaults.temperature, card.defaults.top_k, card.defaults.top_p) == (0.6, 20, 1.0)
    assert card.eos_token_ids == {1, 2, 3}


@pytest.mark.parametrize(("written", "meant"), [(50.0, 50), (-1, 0)])
def test_top_k_as_files_in_the_field_write_it(folder, written, meant):
    top_k = load_card(folder(generation_config={"top_k": written})).defaults.top_k
    assert (top_k, type(top_k)) == (meant, int)


@pytest.mark.parametrize("templates", [[{"name": "default"}], ["default"], [{"name": "rag", "template": "x"}]])
def test_a_list_without_a_plain_template_is_none(folder, templates):
    assert load_card(folder(tokenizer_config={"chat_template": templates})).template is None


def test_a_model_that_was_published_as_greedy_stays_greedy(folder):
    assert load_card(folder(generation_config={"do_sample": False})).defaults.temperature == 0.0


def test_templates_by_name_and_written_out_tokens(folder):
    templates = [
        {"name": "tool", "template": "no"},
        {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
    ]
    card = load_card(folder(tokenizer_config={"chat_template": templates, "bos_token": {"content": "<s>"}}))
    assert card.template.render(HI) == "<s><hi>"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer": "{"}, "tokenizer.json cannot be read"),
        ({"config": "[]"}, "config.json does not hold a JSON object"),
        ({"generation_config": {"temperature": "hot"}}, "'temperature' is not a number but 'hot'"),
        (
            {"generation_config": {"temperature": -1}},
            "temperature must lie in .* correct the file, or take the field out",
        ),
        ({"generation_config": '{"top_p": NaN}'}, "top_p must lie in"),
        ({"generation_config": {"top_k": 50.5}}, "'top_k' is not a whole number but 50.5"),
        (
            {"generation_config": {"eos_token_id": "</s>"}},
            "eos_token_id: '</s>' is neither a token id nor a list of them",
        ),
        ({"config": {"eos_token_id": [2.0]}}, "eos_token_id: .* is neither a token id nor a list of them"),
        ({"tokenizer_config": {"chat_template": 5}}, "chat template is no text but 5"),
        ({"tokenizer_config": {"chat_template": "{% if %}"}}, "chat template is not valid"),
        ({"config": "{"}, "Expecting property name"),
    ],
)
def test_broken_files_are_named(folder, files, message):
    with pytest.raises(ModelCardError, match=message):
        load_card(folder(**files))


def test_no_folder(tmp_path):
    with pytest.raises(ModelCardError, match=r"there is no .*nothing; give a model's folder"):
        load_card(tmp_path / "nothing")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source):
    with pytest.raises(InvalidRequestError, match="does not accept these messages"):
        ChatTemplate(source, {}).render(HI)


def test_what_templates_in_the_field_use():
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%Y')|length }}"
    )
    assert ChatTemplate(source, {}).render(HI) == '{"role": "user", "content": "<hi>"}4'


def test_a_template_that_is_no_template():
    with pytest.raises(TemplateError):
        ChatTemplate("{% for %}", {})
