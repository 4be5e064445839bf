"""What is in the wheel, and that every setting of the package has one home."""

from __future__ import annotations

import configparser
import email
import importlib.metadata
import os
import re
import shutil
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import ROOT, run_child

import ai_response_logging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "ai_response_logging")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
builds_a_wheel = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    """Return setup.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


@pytest.fixture(scope="module")
def pyproject() -> dict[str, object]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Return the wheel that `.ci/run build` tests, else one built here from a copy of the sources."""
    path = os.environ.get("AI_RESPONSES_WHEEL") or build_wheel(tmp_path_factory.mktemp("wheel"))
    with zipfile.ZipFile(path) as archive:
        yield archive


def build_wheel(folder: Path) -> Path:
    """Build a wheel with the setuptools of this environment, so that no network is asked."""
    try:
        setuptools = int(importlib.metadata.version("setuptools").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        setuptools = 0
    if setuptools < 77:
        pytest.skip("no setuptools >= 77 in this environment; the extra `test` brings it")
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, sources / name)
    run_child(BUILD, folder, cwd=sources, timeout=60)
    return next(folder.glob("*.whl"))


def read_info(wheel: zipfile.ZipFile, name: str) -> str:
    """Return one file of a wheel's .dist-info folder."""
    return wheel.read(next(path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))).decode()


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    """Return a wheel's METADATA."""
    return email.message_from_string(read_info(wheel, "METADATA"))


@pytest.mark.slow
@builds_a_wheel
def test_a_wheel_tells_type_checkers_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    """Whoever installs the wheel gets our annotations."""
    assert "ai_response_logging/py.typed" in wheel.namelist()


@pytest.mark.slow
@builds_a_wheel
def test_a_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Installing us puts one package into site-packages, and neither tests nor configuration beside it."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert tops == {"ai_response_logging", "ai_response_logging-0.1.0.dist-info"}


@pytest.mark.slow
@builds_a_wheel
def test_a_wheel_holds_every_module_and_data_file_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    """What runs from the checkout runs from the wheel: no module and no data file stays at home."""
    package = ROOT / "ai_response_logging"
    if not package.is_dir():
        pytest.skip("the sources are gone, as `.ci/run build` wants it")
    wanted = {
        path.relative_to(ROOT).as_posix() for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }

    assert wanted <= set(wheel.namelist())


@pytest.mark.slow
@builds_a_wheel
def test_a_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    """The command is `ai-responses`, and it calls the main function of our command line."""
    parser = configparser.ConfigParser()
    parser.read_string(read_info(wheel, "entry_points.txt"))

    assert dict(parser["console_scripts"]) == {"ai-responses": "ai_response_logging.cli:main"}


@pytest.mark.slow
@builds_a_wheel
def test_a_wheel_carries_its_licence_and_name(wheel: zipfile.ZipFile) -> None:
    """Licence, name and version are where installers and lawyers look."""
    metadata = metadata_of(wheel)

    assert (metadata["Name"], metadata["Version"]) == ("ai-response-logging", "0.1.0")
    # The page of the report carries ECharts and, in it, a part of d3.
    assert metadata["License-Expression"] == "MIT AND Apache-2.0 AND BSD-3-Clause"
    assert "the ai_response_logging authors" in read_info(wheel, "licenses/LICENSE")


@pytest.mark.slow
@builds_a_wheel
def test_a_plain_install_asks_for_five_packages(wheel: zipfile.ZipFile) -> None:
    """Without an extra, an application gets the five packages of the architecture and no more."""
    required = [line for line in metadata_of(wheel).get_all("Requires-Dist", []) if "extra ==" not in line]

    names = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in required}
    assert names == {"concurrent-log-handler", "python-json-logger", "orjson", "pyyaml", "typer"}


def test_pyproject_holds_tools_only(pyproject: dict[str, object]) -> None:
    """Metadata has one home: pyproject.toml says how to build and how tools behave, nothing else."""
    assert set(pyproject) == {"build-system", "tool"}


def test_setup_cfg_is_the_only_home_of_metadata(setup_cfg: configparser.ConfigParser) -> None:
    """No second file could contradict setup.cfg, and it holds no tool's settings but import-linter's."""
    tools = {name.partition(":")[0] for name in setup_cfg.sections()}

    assert tools == {
        "metadata",
        "options",
        "options.packages.find",
        "options.package_data",
        "options.entry_points",
        "options.extras_require",
        "importlinter",
    }
    assert [name for name in ("setup.py", "requirements.txt", "tox.ini", "pytest.ini") if (ROOT / name).exists()] == []


def test_the_extra_all_takes_in_every_other_extra(setup_cfg: configparser.ConfigParser) -> None:
    """`all` is everything that exists, but for the four extras that the architecture leaves out."""
    extras = set(setup_cfg["options.extras_require"]) - {"all"}
    wanted = extras - {"litellm", "langchain", "spark", "local-model"}

    named = re.search(r"\[(.*)\]", setup_cfg["options.extras_require"]["all"])
    assert named is not None
    assert set(named[1].split(",")) == wanted


def test_every_bound_on_private_ground_is_tight(setup_cfg: configparser.ConfigParser) -> None:
    """We build on private names of concurrent-log-handler, so a new minor of it never comes by itself."""
    assert "concurrent-log-handler>=0.9.31,<0.10" in setup_cfg["options"]["install_requires"]


def test_the_package_knows_its_version(setup_cfg: configparser.ConfigParser) -> None:
    """A program that asks the package for its version is told what setup.cfg says."""
    assert ai_response_logging.__version__ == setup_cfg["metadata"]["version"]


def test_the_changelog_knows_this_version(setup_cfg: configparser.ConfigParser) -> None:
    """Every version that can be installed has its place in the changelog, data safety first."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")

    entry = changelog.partition(f"## [{setup_cfg['metadata']['version']}]")[2]
    assert re.findall(r"^### (.*)$", entry, flags=re.MULTILINE)[0] == "Data safety"


def test_the_licence_is_mit() -> None:
    """LICENSE is the MIT licence, and names the holders."""
    text = (ROOT / "LICENSE").read_text("utf-8")

    assert text.startswith("MIT License\n\nCopyright (c) 2026 the ai_response_logging authors\n")
    assert "without restriction" in text
    assert "WITHOUT WARRANTY OF ANY KIND" in text
