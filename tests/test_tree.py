"""Where tests are: in the folder with the name of the package that they test.

Tests of the whole product are at the top or in a folder there.
"""

from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]


def folders_with(pattern: str, root: Path) -> set[PurePosixPath]:
    """Return the folders below one that have such a file, relative to it."""
    found = [*root.rglob(pattern), *root.glob(f"backends/**/{pattern}")]
    return {PurePosixPath(path.relative_to(root).parent) for path in found}


def packages() -> set[PurePosixPath]:
    # A link is not followed by rglob, so the clouds are asked for by name.
    found = folders_with("__init__.py", ROOT / "ollama_proxy")
    return found - {PurePosixPath(".")}


def test_every_package_has_its_tests_in_the_folder_of_its_name() -> None:
    tested = folders_with("test_*.py", ROOT / "tests")

    assert packages() - tested == set()


def test_no_folder_of_tests_is_named_after_what_is_no_package() -> None:
    """Below a package's folder; at the top it is one that tests the whole product."""
    tops = {PurePosixPath(path.parts[0]) for path in packages()}
    nested = {
        path
        for path in folders_with("test_*.py", ROOT / "tests")
        if len(path.parts) > 1 and PurePosixPath(path.parts[0]) in tops
    }

    assert nested - packages() == set()
    assert PurePosixPath("backends/exoscale") in packages()
