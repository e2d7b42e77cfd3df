from litegpt.train_scripts.rewards.answer_format import answer_format

OPENING = "Local diseases of this chest radiograph are "


def test_an_answer_of_the_language_is_worth_one_and_all_else_nothing():
    texts = [f"{OPENING}No finding.", f" {OPENING}<p>ILD</p> {{<1><2><30><40>}}.", "", f"{OPENING}<p>ILD</p>"]
    texts += [f"{OPENING}<p>Edema</p> {{<1><2><30><40>}}.", f"{OPENING}<p>ILD</p> {{<30><2><1><40>}}."]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    assert answer_format(completions, [["ILD"]] * len(texts), findings=[]) == [1, 1, 0, 0, 0, 0]
