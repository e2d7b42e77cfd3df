import pytest

from litegpt.datasets_scripts.image_files import ImageIds, file_counts, find_files, image_id_of, match


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("cell", "image_id"),
    [
        ("images/0001.png", "0001"),
        ("train\\0001.DICOM", "0001"),
        (" 0001 ", "0001"),
        ("a.dcm.png", "a"),
        ("1.2.840.10008", "1.2.840.10008"),
        ("1.2.840.dcm", "1.2.840"),
    ],
)
def test_an_image_has_one_name_with_and_without_folder_and_suffix(cell, image_id):
    assert image_id_of(cell) == image_id


def test_two_images_of_one_name_in_two_folders_are_never_made_one():
    image_id_in = ImageIds()
    assert image_id_in("a/1.png", "t.csv, line 2") == image_id_in("a/1.png", "t.csv, line 3") == "1"
    with pytest.raises(ValueError, match="^t.csv, line 4: b/1.png and a/1 are two images of one name"):
        image_id_in("b/1.png", "t.csv, line 4")


def test_files_in_sub_folders_are_found_and_the_least_deep_comes_first(tmp_path):
    write(tmp_path, "a.PNG", "a.jpg", "thumbs/a.png", "part1/b.dcm", "__MACOSX/c.png", ".hidden.png", "notes.txt")
    files = find_files(str(tmp_path))
    assert files.paths == {"a": str(tmp_path / "a.PNG"), "b": str(tmp_path / "part1/b.dcm")}
    assert len(files.second) == 2 and file_counts(files, ["a"]) == {"files_not_in_table": 1, "second_files": 2}


def test_two_files_of_one_image_of_which_neither_comes_first_are_refused(tmp_path):
    write(tmp_path, "part1/1.png", "part2/1.png", "part2/2.png")
    files = find_files(str(tmp_path))
    assert list(match(["2"], files, "t.csv", "train")) == ["2"]
    with pytest.raises(ValueError, match=r"^1 has two files, .*part1/1.png and .*part2/1.png: remove one"):
        match(["1", "2"], files, "t.csv", "train")


def test_names_match_in_another_case_where_that_is_certain(tmp_path):
    write(tmp_path, "0a1b.png", "X.png", "x.png")
    files = find_files(str(tmp_path))
    assert match(["0A1B", "x"], files, "t.csv", "train") == {
        "0A1B": str(tmp_path / "0a1b.png"),
        "x": str(tmp_path / "x.png"),
    }
    with pytest.raises(ValueError, match="t.csv names 0A1B and 0a1b, and one file is both"):
        match(["0A1B", "0a1b"], files, "t.csv", "train")


def test_where_nothing_matches_an_example_of_both_sides_is_shown(tmp_path):
    write(tmp_path, "0001.png")
    with pytest.raises(FileNotFoundError, match='train.csv has "1", the folder "0001.png"'):
        match(["1"], find_files(str(tmp_path)), "path/train.csv", "train")


def test_where_a_bare_name_tells_no_images_apart_the_folders_do(tmp_path):
    write(tmp_path, "p1/view1.png", "p2/view1.png", "PNG/p2/view1.png")
    files = find_files(tmp_path, id_of=lambda path: image_id_of("_".join(path.split("/")[-2:])))
    assert files.paths == {"p1_view1": str(tmp_path / "p1/view1.png"), "p2_view1": str(tmp_path / "p2/view1.png")}
    assert files.second == [str(tmp_path / "PNG/p2/view1.png")] and not files.several
