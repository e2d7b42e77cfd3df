import pytest

from litegpt.processing.tasks import LABEL_TASKS, TASKS, WORD_TASKS, is_free_text, join_question, split_question


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("report", ("report", None)),
        (" report ", ("report", None)),
        ("refer: enlarged heart", ("refer", "enlarged heart")),
        ("refer:enlarged heart ", ("refer", "enlarged heart")),
        ("question: Which side: left or right?", ("question", "Which side: left or right?")),
        ("describe: {<38><52><81><74>}", ("describe", "{<38><52><81><74>}")),
        (
            'chat: [{"role": "user", "content": "Hello: you?"}]',
            ("chat", '[{"role": "user", "content": "Hello: you?"}]'),
        ),
        ("caption", ("caption", None)),
        ("caption: short", ("caption", "short")),
    ],
)
def test_a_question_is_a_task_and_what_it_is_about(question, parts):
    assert split_question(question) == parts
    assert split_question(join_question(*parts)) == parts


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.about is not None])
def test_a_question_that_does_not_say_what_it_is_about_is_refused_in_one_sentence(task):
    for question in (task, f"{task}:", f"{task}:  "):
        with pytest.raises(ValueError, match=rf'^\[{task}\] needs its {TASKS[task].about}: "{task}: [a-z]+"\.$'):
            split_question(question)


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.about is None])
def test_a_question_about_the_radiograph_alone_is_about_nothing_else(task):
    with pytest.raises(ValueError, match=rf"^\[{task}\] is about the radiograph alone, not about 'the heart'\.$"):
        split_question(f"{task}: the heart")


def test_tasks_about_labels_and_in_words_are_all_there_are():
    assert {**LABEL_TASKS, **WORD_TASKS} == TASKS
    assert list(LABEL_TASKS) == ["identify", "vqa", "grounding"]
    assert [name for name in TASKS if is_free_text(name)] == [
        "describe",
        "report",
        "grounded_report",
        "question",
        "chat",
    ]
    assert not is_free_text("caption")  # nobody knows its answers
    assert [TASKS[name].identifier for name in ("question", "chat", "refer")] == ["[vqa]", "", "[refer]"]
