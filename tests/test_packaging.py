"""What a wheel carries is what git tracks: an unlisted sub-package or data file would vanish without a word."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("metrics", "runners", "reports", "data")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.decode().split("\0") if name]


def inside_package(name: str) -> str:
    """The path a tracked file has in the wheel."""
    return name if name.split("/")[0] == "magbench" else f"magbench/{name}"


def test_every_package_is_listed() -> None:
    found = {"magbench"} | {
        inside_package(str(init.parent.relative_to(ROOT))).replace("/", ".")
        for folder in ("magbench", *FOLDERS)
        for init in (ROOT / folder).rglob("__init__.py")
        if not any(part.is_symlink() for part in [init, *init.parents])
    }
    assert set(SETUPTOOLS["packages"]) == found


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_point_at_the_root_folders(folder: str) -> None:
    link = ROOT / "magbench" / folder
    if link.is_file():
        pytest.skip("git wrote the link as a text file (core.symlinks=false)")
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_name_cannot_be_imported(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"use 'magbench.{folder}'" in done.stderr


def test_wheel_carries_what_is_tracked(tmp_path: Path) -> None:
    pytest.importorskip("build")
    names = tracked()
    source = tmp_path / "source"
    for name in names:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    pytest.importorskip("setuptools")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("magbench/")}
        outside = {name for name in archive.namelist() if not name.startswith("magbench")}
    expected = {
        inside_package(name)
        for name in names
        if name.split("/")[0] in ("magbench", *FOLDERS) and not (ROOT / name).is_symlink()
    }
    assert packed == expected
    assert not outside
