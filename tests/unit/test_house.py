"""What must hold for the layout of this repository."""


def test_the_folder_operator_is_no_package(checkout):
    """It would shadow the standard library's `operator`, and nothing would start."""
    assert not (checkout / "operator" / "__init__.py").exists()
