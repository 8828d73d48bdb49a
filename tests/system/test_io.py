def test_a_folder_that_another_process_makes_at_once_is_no_file_in_the_way(tmp_path, monkeypatch):
    looked = Path.is_dir
    answers = [False]

    def is_dir(path):
        if path.name == "shared" and answers:
            path.mkdir()  # by another, just after the first look
            return answers.pop()
        return looked(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    io.make_folder(tmp_path / "shared")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        io.make_folder(tmp_path / "file")
