"""Text for messages."""

from peftbench.core.text import decoded, did_you_mean


def test_near_names_are_suggested():
    assert did_you_mean("lorra", ["lora", "bitfit"]) == "did you mean lora?"
    assert did_you_mean("LoRAx", ["lora", "bitfit"]) == "did you mean lora?"


def test_at_most_ten_names_are_listed():
    names = [f"name{number:03}" for number in range(1, 201)]
    ten = ", ".join(names[:10])
    assert did_you_mean("?", names[:10]) == f"allowed: {ten}"
    assert did_you_mean("?", names[:11]) == f"allowed: {ten}, … and 1 more"
    assert did_you_mean("?", reversed(names)) == f"allowed: {ten}, … and 190 more"


def test_names_of_files_as_text():
    assert decoded("größe 漢.csv") == "größe 漢.csv"
    assert decoded(b"caf\xe9".decode("utf-8", "surrogateescape")) == r"caf\xe9"
    assert decoded("größe".encode().decode("ascii", "surrogateescape")) == "größe"
    assert decoded("half \ud83d") == r"half \ud83d"
