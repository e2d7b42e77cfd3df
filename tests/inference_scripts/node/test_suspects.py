"""What may have ended the node is answered alone, and not for ever."""

from litegpt.inference_scripts.node.suspects import DEADLY, Suspects


def test_what_was_at_work_at_an_end_is_a_suspect_and_what_was_done_is_none(tmp_path):
    suspects = Suspects(tmp_path / "at_work.json")
    suspects.begin(["1.1", "1.2"])
    suspects.end(["1.1"])
    assert Suspects(tmp_path / "at_work.json").alone == {"1.2": 1}


def test_the_one_at_which_the_node_ends_again_and_again_is_found(tmp_path):
    Suspects(tmp_path / "at_work.json").begin(["1.1", "1.2", "1.3"])
    for ended in range(2, DEADLY + 1):
        suspects = Suspects(tmp_path / "at_work.json")
        suspects.begin(["1.2"])  # the others are not taken up
        assert not suspects.is_deadly("1.2")
        assert Suspects(tmp_path / "at_work.json").alone["1.2"] == ended
        (tmp_path / "at_work.json").write_text(f'{{"at_work": [], "ended": {{"1.2": {ended}, "1.3": 1}}}}')
    suspects = Suspects(tmp_path / "at_work.json")
    assert suspects.is_deadly("1.2") and not suspects.is_deadly("1.3")
    suspects.end(["1.2", "1.3"])
    assert Suspects(tmp_path / "at_work.json").alone == {}


def test_a_broken_file_names_nobody(tmp_path):
    (tmp_path / "at_work.json").write_text("{")
    assert Suspects(tmp_path / "at_work.json").alone == {}
